"""A paper's experiments, done again: its method and baselines trained under one protocol, its tables with our numbers.

papers/*.yaml   what each paper did: runs, tables, published numbers, figures; `paper.py` checks them
data.py         the folders or phantoms at hand, and what their labels are called
adapt.py        recipes fitted to data and budget, by rules
plan.py         what will be done, and what cannot be
work.py         doing one run and scoring it
results.py      ours beside the published, tests, order
files.py figures.py page.py    what is written
command.py      all of it
"""

from attentus.reproduce.command import Reproduction, reproduce
from attentus.reproduce.data import Request
from attentus.reproduce.paper import load_paper, papers
from attentus.reproduce.plan import Wish, make_plan

__all__ = ["Reproduction", "Request", "Wish", "load_paper", "make_plan", "papers", "reproduce"]
