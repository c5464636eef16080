"""Everything that is shown on a terminal. The only package that uses Rich."""

from caa_cli.display.bars import REFRESH_SECONDS, Bar
from caa_cli.display.terminal import AttackDisplay, Display, Rows
from caa_cli.display.text import clock, number, visible

__all__ = ["REFRESH_SECONDS", "AttackDisplay", "Bar", "Display", "Rows", "clock", "number", "visible"]
