"""docs/deploy.md leaves nothing of template.yaml out: every parameter, and every alarm with its threshold."""

import re

import pytest

from nexus.prices import MONTH
from social.catalogue import QUEUES
from tests.support.pages import DOCS
from tests.support.template import resources, template

TEXT = (DOCS / "deploy.md").read_text()


@pytest.mark.parametrize("parameter", template()["Parameters"])
def test_a_parameter_is_explained(parameter: str) -> None:
    explained = f"`{parameter}`" in TEXT
    assert explained, f'docs/deploy.md, "4. Parameters": it needs a row for `{parameter}` (schedules have one together)'


@pytest.mark.parametrize("queue", QUEUES)
def test_an_alarms_threshold_is_the_templates(queue: str) -> None:
    alarm = resources("AWS::CloudWatch::Alarm")[f"{queue.capitalize()}AgeAlarm"]["Properties"]
    assert f"{queue} {alarm['Threshold']} s" in TEXT
    assert alarm["Period"] * alarm["EvaluationPeriods"] == 900


def test_the_concurrency_that_it_asks_for_is_the_sum_of_the_queues() -> None:
    (said,) = re.findall(r"(\d+) for the six queues", TEXT)
    assert int(said) == sum(QUEUES[queue] for queue in QUEUES)


def test_the_number_of_alarms_that_it_counts_is_the_templates() -> None:
    (said,) = re.findall(r"fixed: (\d+) alarms", TEXT)
    assert int(said) == len(resources("AWS::CloudWatch::Alarm"))


def test_the_comparison_with_fargate_follows_from_the_prices_above_it() -> None:
    def price(row: str) -> float:
        (found,) = re.findall(rf"^\| {row}[^|]* \| ([\d.]+) \|", TEXT, re.MULTILINE)
        return float(found)

    rows = re.findall(r"^\| ([\d.]+) \| [\d.]+ \| ([\d.,]+) \| ([\d.,]+) \| 55", TEXT, re.MULTILINE)
    assert len(rows) >= 5
    for rate, *shown in rows:
        million = float(rate) * 86_400 * MONTH / 1e6
        wanted = [
            price("fixed: ") + million * price(each) for each in ("messages sent one by one", "messages in batches")
        ]
        assert [float(text.replace(",", "")) for text in shown] == pytest.approx(wanted, rel=0.03)
