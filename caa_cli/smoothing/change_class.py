"""Other methods for layers of somebody's network, in place: a layer's class becomes a class derived from it."""

from __future__ import annotations

from typing import Any

from torch import nn


def change_class(part: nn.Module, base: type[nn.Module]) -> None:
    """Make `part` an instance of `base` and its own class, whose name it keeps: methods of `base` come first."""
    kind = type(part)
    set_class(part, type(kind.__name__, (base, kind), {"__module__": kind.__module__}))


class UndoneByCopying(nn.Module):
    """A base for `change_class`: a copy of such a part, also by pickle, is of the class that the part had before."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__new__, (class_before(type(self)),), self.__dict__


def class_before(changed: type[nn.Module]) -> type[nn.Module]:
    """The class that a part had before `change_class`."""
    return changed.__bases__[-1]


def set_class(part: nn.Module, kind: type[nn.Module]) -> None:
    """Modules have a __setattr__ of their own, which this goes around."""
    object.__setattr__(part, "__class__", kind)
