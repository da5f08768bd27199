"""Every causal model type of transformers as a base: it passes the self-check, or is refused in one line."""

import pytest
import transformers

from tests.model_types import WITHOUT_TINY_MODEL, model_types, tiny_model
from tests.model_verdicts import PAGE, as_base, own_tokenizer_as, stated

pytestmark = pytest.mark.slow
ON_PAGE = stated(PAGE.read_text())
# Other versions have other types, and some do other things.
IS_VERSION_OF_PAGE = f"transformers {transformers.__version__}:" in PAGE.read_text()


@pytest.mark.parametrize("model_type", sorted(ON_PAGE.keys() & set(model_types()) - WITHOUT_TINY_MODEL.keys()))
def test_a_type_composes_with_itself_or_is_refused_as_the_page_says(model_type):
    found = as_base(model_type)
    own = own_tokenizer_as(tiny_model(model_type), found)
    assert [found, own] == [ON_PAGE[model_type][column] for column in (1, 4)] or not IS_VERSION_OF_PAGE


@pytest.mark.skipif(not IS_VERSION_OF_PAGE, reason="the page is of another version of transformers")
def test_the_page_has_every_type():
    assert list(ON_PAGE) == model_types()
