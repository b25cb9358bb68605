"""What was published, as numbers with their sources; how each is run here; and what runs measured beside it.

The numbers are in ``vision.json`` and ``systems.json``, as their authors printed them. Nothing in them is a result of limbeck.
"""

from limbeck.published.plans import Command, Plan, plan
from limbeck.published.tables import Cell, Column, PublishedTable, Row, Source, find_table, tables

__all__ = ["Cell", "Column", "Command", "Plan", "PublishedTable", "Row", "Source", "find_table", "plan", "tables"]
