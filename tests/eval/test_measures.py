"What each metric gives to a perfect, an empty, a constant and a shuffled predictor; edges by hand."

import numpy as np
import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.detections import boxes_by_label, voc_map
from earthgpt_lite.eval.measures import ALL_METRICS, METRICS, first_box_overlap, rsvqa_bucket, weighted_metric

A, B, C, D = (
    '[0.00,0.00,0.20,0.20]',
    '[0.30,0.30,0.50,0.50]',
    '[0.60,0.60,0.80,0.80]',
    '[0.80,0.00,1.00,0.20]',
)
TRUTHS = dict(
    classification=['forest', 'water', 'desert', 'ice'],
    counting=['1', '2', '3', '6'],
    grounding=[A, B, C, D],
    caption=['ships lie in harbor', 'trees stand in forest', 'sand covers in desert', 'snow melts in spring'],
    detection=[f'<p>1 ship</p>{A}', f'<p>1 ship</p>{B}', f'<p>1 ship</p>{C}', f'<p>1 ship</p>{D}'],
)
PREDICTORS = dict(
    perfect=lambda t: t,
    empty=lambda t: [''] * 4,
    constant=lambda t: [t[1]] * 4,
    shuffled=lambda t: t[1:] + t[:1],
)
# task, metric: perfect, empty, constant, shuffled
TABLE = {
    ('classification', 'accuracy'): (1, 0, 0.25, 0),
    # an empty answer is as wrong as one could be: 6-1, 6-2, 3, 6
    ('counting', 'accuracy'): (1, 0, 0.25, 0),
    ('counting', 'MAE'): (0, 4.5, 1.5, 2.5),
    ('caption', 'BLEU-1'): (1, 0, 0.4375, 0.25),
    ('caption', 'BLEU-4'): (1, 0, (7 / 16 * 3 / 12 * 2 / 8 * 1 / 4) ** 0.25, 0),
    ('caption', 'ROUGE-L'): (1, 0, 0.4375, 0.25),
    # `in` is everywhere and weighs nothing
    ('caption', 'CIDEr'): (10, 0, 2.5, 0),
    ('grounding', 'meanIoU'): (1, 0, 0.25, 0),
    ('grounding', 'cumIoU'): (1, 0, 1 / 7, 0),
    ('grounding', 'Pr@0.5'): (1, 0, 0.25, 0),
    ('grounding', 'Pr@0.9'): (1, 0, 0.25, 0),
    ('detection', 'precision'): (1, 0, 0.25, 0),
    ('detection', 'recall'): (1, 0, 0.25, 0),
    ('detection', 'F1'): (1, 0, 0.25, 0),
    ('detection', 'F1@0.4'): (1, 0, 0.25, 0),
    # the one hit is ranked second of four
    ('detection', 'AP50'): (1, 0, 26 / 101 * 0.5, 0),
    ('detection', 'mAP'): (1, 0, 26 / 101 * 0.5, 0),
    ('detection', 'count MAE'): (0, 1, 0, 0),
}


def score(metric, rows):
    return float(weighted_metric(metric, rows, np.arange(len(rows)))(np.ones((1, len(rows))))[0])


@pytest.mark.parametrize('task, metric', TABLE)
def test_table_of_predictors(task, metric):
    truths = TRUTHS[task]
    got = [
        score(metric, [dict(answer=a, truth=t) for a, t in zip(make(truths), truths)])
        for make in PREDICTORS.values()
    ]
    assert got == pytest.approx(TABLE[task, metric], abs=1e-6)


def test_every_metric_of_every_task_runs():
    for task, metrics in ALL_METRICS.items():
        truths = TRUTHS.get('caption' if 'caption' in task else task, TRUTHS['classification'])
        assert set(METRICS[task]) <= set(metrics)
        assert all(np.isfinite(score(m, [dict(answer=t, truth=t) for t in truths])) for m in metrics)


@pytest.mark.parametrize(
    'answer, truth, iou, inter, union',
    [
        (A, A, 1, 0.04, 0.04),
        (A, B, 0, 0, 0.08),
        ('', A, 0, 0, 0.04),
        ('no idea', A, 0, 0, 0.04),
        ('[0.0,0.0,0.2,0.1]', A, 0.5, 0.02, 0.04),
        # corners in the wrong order are put right
        ('[0.2,0.2,0.0,0.0]', A, 1, 0.04, 0.04),
        ('[0.80,0.00,1.30,0.20]', D, 1, 0.04, 0.04),  # cut at the frame
        ('[0.1,0.0,0.2,0.1,0.1,0.2,0.0,0.1]', A, 0.5, 0.02, 0.04),
    ],
)  # turned
def test_overlap(answer, truth, iou, inter, union):
    assert first_box_overlap(answer, truth) == pytest.approx((iou, inter, union))


def test_degenerate_truth_is_widened_not_dropped():
    assert 0 < first_box_overlap(A, '[0.10,0.00,0.10,0.20]')[0] < 0.1


def test_truth_without_box():
    with pytest.raises(BadInput, match='over there'):
        first_box_overlap(A, 'over there')


def test_pr_counts_at_the_threshold():
    rows = [dict(answer='[0.0,0.0,0.2,0.1]', truth=A)]
    assert score('Pr@0.5', rows) == 1 and score('Pr@0.6', rows) == 0


def test_dior_rsvg_by_hand():
    "IoUs 1, .5, 0 (elsewhere) and 0 (unreadable)."
    rows = [dict(answer=a, truth=t) for a, t in [(A, A), ('[0.3,0.3,0.5,0.4]', B), (A, C), ('?', D)]]
    assert [score(f'Pr@{t}', rows) for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == [0.5, 0.25, 0.25, 0.25, 0.25]
    assert score('meanIoU', rows) == pytest.approx(0.375)
    assert score('cumIoU', rows) == pytest.approx((0.04 + 0.02) / (0.04 + 0.04 + 0.08 + 0.04))


@pytest.mark.parametrize(
    'answer, bucket',
    [
        ('0', '0'),
        ('1', 'between 0 and 10'),
        ('10.', 'between 0 and 10'),
        ('11', 'between 10 and 100'),
        ('100', 'between 10 and 100'),
        ('1000', 'between 100 and 1000'),
        ('1001', 'more than 1000'),
        ('0m2', '0m2'),
        ('37m2', 'between 10m2 and 100m2'),
        ('5000m2', 'more than 1000m2'),
        ('Yes', 'yes'),
        ('', ''),
    ],
)
def test_rsvqa_buckets(answer, bucket):
    assert rsvqa_bucket(answer) == bucket


def test_ap_ranks_over_pictures_and_weights_resample():
    rows = [
        dict(answer=f'<p>1 ship</p>{A}', truth=f'<p>1 ship</p>{A}', score=-2.0),
        dict(answer=f'<p>1 ship</p>{A}', truth=f'<p>1 ship</p>{B}', score=-1.0),
    ]
    ask = weighted_metric('AP50', rows, np.array([0, 1]))
    assert ask(np.array([[1.0, 1], [2, 0], [0, 2]])) == pytest.approx([51 / 101 * 0.5, 1, 0])
    found, true = [[boxes_by_label(r[k], r['score']) for r in rows] for k in ('answer', 'truth')]
    assert voc_map(found, true) == pytest.approx(0.25)
