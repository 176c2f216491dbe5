"""What a phrase may not be, and what to do about it."""

from __future__ import annotations

from lanit.errors import excerpt

LONGEST_PHRASE = 1000
"""Characters of a phrase: more cannot be meant as one, and no CLIP has a context for it."""

FILE_HELP = "A prompt file has one phrase a line, and optionally 'noun: face' or 'template: a face with {}.'."
SETTINGS_HELP = "Write it like: smiling | offset=0.01 weight=2"


def wrong_with(domain: str) -> tuple[str, str] | None:
    """Why ``domain`` cannot be a phrase, and what to do about it; none where it can."""
    if domain.count("{}") == 1 and "{" not in domain.replace("{}", ""):
        return "has braces", f"Write a template as 'template: {excerpt(domain)}'."
    if "{" in domain or "}" in domain:
        return "has braces", "Leave them out."
    if "|" in domain:
        return "has a bar", SETTINGS_HELP
    if "," in domain or ";" in domain:
        return "has a comma or semicolon", "Put each phrase on a line of its own."
    if not any(character.isalnum() for character in domain):
        return "has no letter or digit", FILE_HELP
    if len(domain) > LONGEST_PHRASE:
        return f"has {len(domain):,} characters, more than any CLIP reads", "Put each phrase on a line of its own."
    return None
