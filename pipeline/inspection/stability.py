"""How stable labels are, put into the figures of a revision: κ of two crops."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lanit.agreement import Agreement, mean_score
from pipeline.inspection.label_statistics import LabelStatistics, Stability
from pipeline.inspection.warnings import with_warnings

if TYPE_CHECKING:
    from pipeline.inspection.rules_table import RuleOutcome
    from pipeline.stability.agreements import ViewLabels
    from pipeline.store.label_revisions import Labels


def with_stability(statistics: LabelStatistics, agreements: Sequence[Agreement]) -> LabelStatistics:
    """``statistics`` with the agreement of each of its domains, and with the warnings that this calls for."""
    domains = []
    for d, agreement in zip(statistics.domains, agreements, strict=True):
        low, high = agreement.interval or (None, None)
        domains.append(dataclasses.replace(d, stability=agreement.kappa, stability_low=low, stability_high=high))
    found = Stability(agreements[0].images, mean_score(agreements))
    return with_warnings(dataclasses.replace(statistics, domains=tuple(domains), stability=found))


def with_rule_stability(
    outcomes: Sequence[RuleOutcome], labels: ViewLabels, revision: Labels
) -> tuple[RuleOutcome, ...]:
    """Rules side by side with the mean agreement that each would have."""
    return tuple(
        dataclasses.replace(outcome, stability=mean_score(labels.by_rule(outcome.rule, revision.prompt_set)))
        for outcome in outcomes
    )
