"""What a run will do: frozen, checked, and free of torch, so that a wrong one is refused at once.

Values come from defaults < preset < TOML file < environment (CAA_ATTACK_SAMPLES=…) < flags; the command line puts the
layers together (`cli.layers`), a plan only checks the outcome. What the command line leaves to the checkpoint is
None until `resolve`: `run.session` calls it once, before a model is on its device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from caa_cli.config.differences import decisive, formerly
from caa_cli.config.settings import check_each


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The base of all plans. NOT_COMPARED: the settings that change nothing in a result."""

    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The plan of values by users' names, of which it takes those that are its settings. Raises UsageError."""
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    def __post_init__(self) -> None:
        check_each(self)

    def fill_in(self, defaults: Mapping[str, Any]) -> None:
        """Sets what is None; only while the plan is made, which is frozen from then on."""
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def flat_settings(self) -> dict[str, Any]:
        """The settings of its attack or method, in the field `settings`, by users' names."""
        return {}

    def config(self) -> dict[str, Any]:
        """Every setting, as JSON; those of its attack or method stand where `settings` is."""

        def plain(value: Any) -> Any:
            return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

        config: dict[str, Any] = {}
        for name, value in asdict(self).items():
            config |= self.flat_settings() if name == "settings" else {name: plain(value)}
        return config

    def compared_keys(self) -> list[str]:
        """The settings that decide a result: two runs that differ in one of them must not be mixed."""
        keys: list[str] = []
        for field in fields(self):
            if field.name not in self.NOT_COMPARED:
                keys += self.flat_settings() if field.name == "settings" else [field.name]
        return keys

    def fingerprint(self, checkpoint_sha256: str) -> str:
        """A short digest of all that decides a result."""
        config = self.config()
        settings = {key: decisive(key, config[key]) for key in self.compared_keys() if key in config}
        # Settings at their value of before they existed are left out, so that older fingerprints stay valid.
        before = formerly(config)
        settings = {key: value for key, value in settings.items() if key not in before or before[key] != value}
        return fingerprint_of([checkpoint_sha256, settings])


def fingerprint_of(value: object) -> str:
    """A short digest of a value of JSON."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
