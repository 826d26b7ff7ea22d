"""DICOM trees of scans and their labels, converted into datasets: look, choose, write."""

from attentus.data.imports.choose import Case, Channel, Plan, Row, Wish, choose
from attentus.data.imports.convert import Result, convert
from attentus.data.imports.survey import Survey, survey

__all__ = ["Case", "Channel", "Plan", "Result", "Row", "Survey", "Wish", "choose", "convert", "survey"]
