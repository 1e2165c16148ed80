"""Without mindone, pretrained text encoders say what to install; the others work."""

import sys

import pytest

from mg.conditions.text.extra import needs_text_extra
from mg.conditions.text.text_networks import build_text_network


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "mindone.transformers", None)
    with pytest.raises(ValueError, match=r"mindone\.transformers.*pip install 'mg-video\[text\]'"):
        build_text_network(kind, {})


def test_other_faults_pass_through():
    with pytest.raises(KeyError, match="anything"), needs_text_extra():
        raise KeyError("anything")
