"""What an encoder finds: exact search, figures by query, the student beside its teacher, cost."""

from limbeck.evaluate.search.beside import Beside, QueryBeside, beside
from limbeck.evaluate.search.embed import SearchCost, embed, search_cost
from limbeck.evaluate.search.index import Index, check_same_similarity, find, make_index
from limbeck.evaluate.search.score import MEASURES, SearchScore, score

__all__ = [
    "MEASURES",
    "Beside",
    "Index",
    "QueryBeside",
    "SearchCost",
    "SearchScore",
    "beside",
    "check_same_similarity",
    "embed",
    "find",
    "make_index",
    "score",
    "search_cost",
]
