"""What learned prompts are checked by: how far the labels of two crops agree, at the start and at each refresh.

The loss that teaches prompts sees images that the generator made, and says nowhere when to stop: prompts learn to see
what it failed to draw. Crops of the user's own images say when labels get worse, without any truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lanit.agreement import mean_score
from lanit.labels import EmbeddedPrompts, Rule
from pipeline.clip.models import ClipModel
from pipeline.stability.agreements import ViewLabels, keep_view_labels, label_views
from pipeline.stability.crops import make_views
from pipeline.stability.views import PATIENCE, Views
from pipeline.store.store import Store


@dataclass
class PromptGuard:
    """store: of the images. clip: the model that filled it. Only the first process looks."""

    store: Store
    clip: ClipModel
    _views: Views | None = field(default=None, init=False)

    def look(self, prompts: EmbeddedPrompts, rule: Rule) -> ViewLabels:
        """Labels of the crops. Raises LanitError where there are too few images, or none can be read in good time."""
        if self._views is None:
            self._views = make_views(self.store, self.clip, patience=PATIENCE)
        return label_views(self._views, prompts.to(torch.device("cpu")), rule)

    def keep(self, revision: int, labels: ViewLabels) -> None:
        """For ``inspect-labels`` of a revision that these prompts made."""
        assert self._views is not None, "labels come from views"
        keep_view_labels(self.store, self._views, self.store.revision_file(revision), labels)


def stability_of(labels: ViewLabels) -> float:
    """Mean κ over the domains, as :attr:`lanit.agreement.Agreement.score` has it."""
    return mean_score(labels.agreements())
