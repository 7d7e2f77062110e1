"""Each feature of each format comes out as docs/media.md says.

The table there is made here: NEXUS_WRITE_TABLE=1 writes it, otherwise it is compared.
"""

import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest

import pictures
from pictures import rendering
from social.refusals import Code, Rejected
from tests.support.footage import filmed
from tests.support.matrix import Feature, off, pictured
from tests.support.reference import Film
from tests.unit.media.matrix import clips, gif, heif, jpeg, png, webp

PAGE: Final = Path(__file__).parents[4] / "docs" / "media.md"
BEGIN, END = "<!-- The matrix: made by tests/unit/media/matrix -->", "<!-- The end of the matrix -->"
FEATURES: Final = [feature for family in (jpeg, png, gif, webp, heif, clips) for feature in family.MATRIX.features]
CASES: Final = [
    pytest.param(feature, case, id=" ".join(filter(None, (feature.format, feature.name.replace("`", ""), case))))
    for feature in FEATURES
    for case in feature.cases
]


@pytest.fixture(autouse=True)
def without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renditions show what was decoded: how well they are compressed is another test's."""
    animated = rendering._Reel.save

    def encode(picture: Any, _encoding: str) -> bytes:
        out = BytesIO()
        picture.save(out, "WEBP", lossless=True, exact=True)
        return out.getvalue()

    monkeypatch.setattr(rendering, "_encode", encode)
    monkeypatch.setattr(rendering._Reel, "save", lambda *given, **how: animated(*given, **{**how, "lossless": True}))


@pytest.mark.programs
@pytest.mark.parametrize(("feature", "case"), CASES)
def test_each_case_of_a_feature_comes_out_as_the_page_says(feature: Feature, case: str) -> None:
    made = feature.make(*feature.cases[case])
    clip = any(feature is one for one in clips.MATRIX.features)
    if isinstance(feature.outcome, Code):
        assert (filmed(made) if clip else pictured(made)) == feature.outcome
        return
    file, wanted = made
    if clip:
        shown = filmed(file)
        assert not isinstance(shown, Code), shown
        assert not wanted.faults(shown, feature.within, feature.edges)
        return
    seen = pictured(file)
    if isinstance(wanted, Film):
        assert isinstance(seen, Film), seen
        assert (seen.milliseconds, seen.plays) == (list(wanted.milliseconds), wanted.plays)
        pairs = list(zip(seen.frames, wanted.frames, strict=True))
    else:
        assert not isinstance(seen, Code | Film), seen
        pairs = [(seen, wanted)]
    for number, (one, other) in enumerate(pairs):
        away = off(one, other, feature.edges)
        assert away <= feature.within, f"frame {number}"


@pytest.mark.programs
@pytest.mark.parametrize(
    "feature",
    [feature for feature in FEATURES if feature not in clips.MATRIX.features],
    ids=lambda feature: f"{feature.format} {feature.name}",
)
def test_every_case_can_be_decoded_in_the_confined_process(feature: Feature, tmp_path: Path) -> None:
    """It cannot open files any longer, so what a decoder imports late would fail there, and only there."""
    for number, given in enumerate(feature.cases.values()):
        made = feature.make(*given)
        source, folder = tmp_path / f"{number}", tmp_path / f"{number} made"
        source.write_bytes(made if isinstance(feature.outcome, Code) else made[0])
        folder.mkdir()
        with suppress(Rejected):  # for a test above to judge
            pictures.render(source, folder, seconds=600)


def test_the_page_shows_the_matrix() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    head = ["| format | feature | cases | result | compared with, within |", "| --- | --- | --- | --- | --- |"]
    table = "\n".join([*head, *(feature.row() for feature in FEATURES)])
    if os.environ.get("NEXUS_WRITE_TABLE"):
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    else:
        assert shown.strip() == table
