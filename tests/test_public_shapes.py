"""The table of public shapes: every model has the number of parameters that its hub page gives."""

import pytest

from calmctl.errors import UserError
from calmctl.modeling.public_shapes import public_shapes, shape_of
from calmctl.training.plan import count_parameters
from tests.models import llama


@pytest.mark.parametrize("name", public_shapes())
def test_a_shape_has_the_parameters_that_are_published(name):
    shape = shape_of(name)
    assert shape.is_public and count_parameters(shape.config) == public_shapes()[name]["parameters"]
    assert shape.token_ids is not None and shape.token_ids <= shape.config.vocab_size


def test_a_model_that_is_here_has_its_own_shape(tmp_path, monkeypatch):
    llama(layers=2).save_pretrained(tmp_path / "EleutherAI" / "pythia-410m")
    monkeypatch.chdir(tmp_path)
    shape = shape_of("EleutherAI/pythia-410m")
    assert not shape.is_public and shape.config.num_hidden_layers == 2


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match="'some/model' is neither a folder .* name one of Qwen/Qwen2.5-0.5B"):
        shape_of("some/model")
