"""Every causal model type of transformers in evaluations: a batch's rows are read as each is alone, or refused."""

import pytest

from tests.model_types import WITHOUT_TINY_MODEL, model_types, tiny_model
from tests.model_verdicts import completing, likelihoods, word_tokenizer
from tests.test_model_types import IS_VERSION_OF_PAGE, ON_PAGE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


@pytest.mark.parametrize("model_type", sorted(ON_PAGE.keys() & set(model_types()) - WITHOUT_TINY_MODEL.keys()))
def test_completions_and_likelihoods_of_a_type_are_those_of_each_row_alone_or_refused(model_type, tokenizer):
    model = tiny_model(model_type)
    found = [completing(model, tokenizer), likelihoods(model, tokenizer)]
    assert found == ON_PAGE[model_type][2:4] or not IS_VERSION_OF_PAGE
