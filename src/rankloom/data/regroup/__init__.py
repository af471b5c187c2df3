"""Flat and grouped layout of a log, one made of the other."""

from rankloom.data.regroup.group import Regrouped, group_log
from rankloom.data.regroup.ungroup import ungroup_log

__all__ = ["Regrouped", "group_log", "ungroup_log"]
