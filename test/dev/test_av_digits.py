"""Splits that do not leak, a recording that says what it shows, a dataset that keeps the contract."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("soxr", reason="soxr is a development dependency: the data of av_digits need it")
pytest.importorskip("sklearn", reason="scikit-learn is a development dependency: the data of av_digits need it")

import make_recording
import prepare_av_digits
from av_digits import recording, scenes, sources, speech
from click.testing import CliRunner
from rosbags.highlevel import AnyReader

BENCH = sources.benchmark_folder()
needs_bench = pytest.mark.skipif(
    not ((BENCH / "mnist.npz").is_file() and (BENCH / "fsdd.npz").is_file()),
    reason=f"no mnist.npz and fsdd.npz in {BENCH}",
)


@pytest.fixture(scope="module")
def espeak_ng() -> None:
    try:
        sources.require_espeak()
    except sources.SourceMissingError as error:
        pytest.skip(str(error))


def assert_apart(parts: dict[str, set]) -> None:
    assert all(parts.values())
    for one, other in itertools.combinations(parts, 2):
        assert not parts[one] & parts[other], f"{one} and {other} share {sorted(parts[one] & parts[other])[:3]}"


def test_no_row_of_scikit_learns_digits_is_in_two_parts_and_every_part_has_every_digit():
    parts = {part: sources.sklearn_digits(part) for part in sources.PARTS}
    assert_apart({part: set(glyphs.rows.tolist()) for part, glyphs in parts.items()})
    assert sum(len(glyphs.rows) for glyphs in parts.values()) == 1797
    for glyphs in parts.values():
        assert np.bincount(glyphs.labels, minlength=10).min() >= 15


def test_no_row_of_mnist_is_in_two_parts():
    assert_apart({part: set(sources.image_rows(part).tolist()) for part in prepare_av_digits.PARTS})


@needs_bench
def test_the_parts_are_those_of_the_benchmark():
    """The checksums that the benchmark's own `parts.py` prints."""
    with np.load(BENCH / "fsdd.npz", allow_pickle=False) as archive:
        about = archive["label"], archive["speaker"], archive["take"]
    clips = {part: sources.recording_rows(part, *about) for part in prepare_av_digits.PARTS}
    assert_apart({part: set(rows.tolist()) for part, rows in clips.items()})
    found = {
        part: hashlib.sha256(sources.image_rows(part).tobytes() + rows.tobytes()).hexdigest()[:12]
        for part, rows in clips.items()
    }
    assert found == CHECKSUMS


CHECKSUMS = {
    "encoders": "50f03f083a1f",
    "fusion": "c0215856dbed",
    "calibration": "59d2fad8092c",
    "test": "4de71b48d542",
}


def test_no_voice_is_heard_in_two_parts_and_the_demo_accent_in_no_other():
    assert_apart({part: set(sources.VARIANTS[part]) for part in sources.PARTS})
    assert_apart({part: set(sources.OTHER_WORDS[part]) for part in sources.PARTS})
    for part in prepare_av_digits.PARTS:
        assert sources.DEMO_ACCENT not in {voice.language for voice in sources.voices(part)}
    assert sources.DEMO_ACCENT in {voice.language for voice in sources.voices("demo")}


def test_no_other_word_is_a_digit():
    assert not set(itertools.chain.from_iterable(sources.OTHER_WORDS.values())) & set(sources.LABELS)


def test_a_frame_is_the_same_for_the_same_seed_and_differs_for_another():
    glyph = sources.sklearn_digits("demo").images[0]
    one, again, other = (scenes.training_frame(glyph, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.shape == (240, 320, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert np.abs(one.astype(int) - other).mean() > 1.0


def assert_ink_is_at_top_left(grey: np.ndarray) -> None:
    rows, columns = np.nonzero(grey < 0.5 * np.median(grey))
    assert rows.mean() < 0.45 * grey.shape[0]
    assert columns.mean() < 0.45 * grey.shape[1]


def test_the_digit_is_drawn_upright_and_not_mirrored():
    """A corner-shaped mark keeps its corner at top left, on the card and in the frame."""
    image = np.zeros((28, 28), np.uint8)
    image[4:8, 4:24] = 255
    image[4:24, 4:8] = 255
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ink = scenes.glyph_ink(image, rng, variety=0.0)
        room = scenes.make_room(rng, 320, 240, variety=0.0)
        card = scenes.make_card(ink, rng, variety=0.0)
        left, top, right, bottom = (round(v) for v in card.ink_box)
        assert_ink_is_at_top_left(card.drawing[top:bottom, left:right].mean(axis=2))
        pose = scenes.make_pose(card, rng, 320 / 240, variety=0.0)
        frame = scenes.render(room, card, pose, rng).mean(axis=2)
        half_w = 0.5 * pose.height * card.drawing.shape[1] / scenes.CANVAS
        cut = frame[
            round((pose.y - 0.4 * pose.height) * 240) : round((pose.y + 0.4 * pose.height) * 240),
            round((pose.x - 0.8 * half_w) * 240) : round((pose.x + 0.8 * half_w) * 240),
        ]
        assert_ink_is_at_top_left(cut)


def test_the_ink_of_every_pose_is_inside_the_frame():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        glyph = sources.sklearn_digits("demo").images[seed]
        card = scenes.make_card(scenes.glyph_ink(glyph, rng), rng)
        pose = scenes.make_pose(card, rng, 320 / 240)
        left, top, right, bottom = card.ink_box
        corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]]).T
        x, y, scale = scenes._onto(card, pose, 240) @ corners
        assert (x / scale).min() > 0
        assert (x / scale).max() < 320
        assert (y / scale).min() > 0
        assert (y / scale).max() < 240


def test_a_digit_window_holds_most_of_the_word_and_begins_with_silence_after_a_loss():
    word = (0.5 * np.sin(np.arange(6000) * 0.3)).astype(np.float32)
    silent = 0
    for seed in range(80):
        window = speech.digit_window(word, np.random.default_rng(seed), None)
        assert window.shape == (16000,)
        assert window.dtype == np.int16
        assert np.abs(window).max() > 30
        lead = int(np.argmax(window != 0))
        silent += lead > 500
        assert lead <= 0.56 * 16000
    assert 2 <= silent <= 25


def test_heard_share_counts_what_lies_inside():
    assert speech.heard_share(length=100, first=0, interval=200, start=0, stop=100) == (1.0, 1.0)
    assert speech.heard_share(length=100, first=-60, interval=200, start=0, stop=100) == (0.4, 0.4)
    assert speech.heard_share(length=100, first=-60, interval=110, start=0, stop=100) == (0.5, 0.9)
    assert speech.heard_share(length=100, first=300, interval=200, start=0, stop=100) == (0.0, 0.0)


@pytest.mark.parametrize("seconds", [2.0, 6.0, 100.0, 601.5])
def test_a_schedule_covers_all_the_time_with_all_digits_equally_and_repeats_none(seconds):
    spans = recording.schedule(seconds, seed=1)
    assert spans[0].start_s == 0.0
    assert spans[-1].stop_s == seconds
    assert all(a.stop_s == b.start_s for a, b in itertools.pairwise(spans))
    assert all(0.9 < span.stop_s - span.start_s < 3.4 for span in spans)
    digits = [span.digit for span in spans if span.digit >= 0]
    assert all(a != b for a, b in itertools.pairwise(digits))
    counts = np.bincount(digits, minlength=10)
    assert counts.max() - counts.min() <= 1
    if seconds == 100.0:
        assert 44 <= len(digits) <= 52
        assert len(spans) - len(digits) == 2


def test_words_begin_soon_after_the_change_and_end_before_the_next():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        lasts_s, word_s = rng.uniform(1.8, 2.3), rng.uniform(0.2, 0.68)
        starts = recording.word_times(lasts_s, word_s, rng)
        assert starts[0] < 0.1
        assert starts[-1] + word_s <= lasts_s
        assert (np.diff(starts) >= word_s).all()
        assert (np.diff(starts) <= 1.0 + 1e-9).all()


def record(folder: Path, *options: str) -> Path:
    out = folder / "short.mcap"
    done = CliRunner().invoke(make_recording.main, ["--out", str(out), "--seconds", "6", "--seed", "5", *options])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def short(tmp_path_factory, espeak_ng) -> Path:
    return record(tmp_path_factory.mktemp("recording"))


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def read(path: Path) -> dict[str, list]:
    """topic -> [(log time in ns, message)] in file order; the types are the recording's own."""
    found: dict[str, list] = {topic: [] for topic in make_recording.TOPICS}
    last = 0
    with AnyReader([path]) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == make_recording.TOPICS
        for connection, log_ns, raw in reader.messages():
            assert log_ns >= last
            last = log_ns
            found[connection.topic].append((log_ns, reader.deserialize(raw, connection.msgtype)))
    return found


def test_recorded_frames_are_jpeg_at_15_hz_with_jitter_and_a_transport_delay(short):
    frames = read(short)["/camera/image"]
    assert len(frames) == 90
    stamps = np.array([stamp_ns(message) for _, message in frames])
    period_ms = np.diff(stamps) / 1e6
    assert period_ms.min() > 15
    assert abs(period_ms.mean() - 1000 / 15) < 1.0
    assert 1.0 < period_ms.std() < 12.0
    delay_ms = (np.array([log_ns for log_ns, _ in frames]) - stamps) / 1e6
    assert 4.9 < delay_ms.min() <= delay_ms.max() < 16
    first = frames[0][1]
    assert first.format == "jpeg"
    picture = scenes.cv2.imdecode(first.data, scenes.cv2.IMREAD_COLOR)
    assert picture.shape == (240, 320, 3)


def test_recorded_audio_is_continuous_and_described_by_a_latched_info(short):
    found = read(short)
    chunks = found["/audio"]
    assert len(chunks) == 60
    assert all(len(message.audio.data) == 2 * 1600 for _, message in chunks)
    stamps = np.array([stamp_ns(message) for _, message in chunks])
    ideal = stamps[0] + np.arange(60) * 100_000_000
    assert np.abs(stamps - ideal).max() < 3_000_000
    assert (np.diff(stamps) > 0).all()
    ends = np.array([log_ns for log_ns, _ in chunks]) - stamps
    assert (ends > 100_000_000).all()
    [(log_ns, info)] = found["/audio_info"]
    assert (info.channels, info.sample_rate, info.sample_format, info.coding_format) == (1, 16000, "S16LE", "wave")
    assert info.bitrate == 256000
    assert log_ns <= chunks[0][0]
    sound = np.concatenate([message.audio.data.view("<i2") for _, message in chunks])
    assert 300 < np.abs(sound.astype(int)).max() < 32767


def test_recorded_labels_change_with_the_schedule_and_repeat_each_second(short):
    labels = [((log_ns - make_recording.START_NS) / 1e9, message.data) for log_ns, message in read(short)["/label"]]
    spans = recording.schedule(6.0, seed=5)
    for at_s, label in labels:
        [now] = [span for span in spans if span.start_s <= at_s < span.stop_s]
        assert label == now.label
    assert {span.start_s for span in spans} <= {at_s for at_s, _ in labels}
    assert np.diff([at_s for at_s, _ in labels]).max() <= 1.0


def test_latched_topics_say_so_in_the_file(short):
    with AnyReader([short]) as reader:
        durability = {c.topic: c.ext.offered_qos_profiles[0].durability.name for c in reader.connections}
    assert durability == {
        "/camera/image": "VOLATILE", "/audio": "VOLATILE", "/audio_info": "TRANSIENT_LOCAL", "/label": "TRANSIENT_LOCAL"
    }  # fmt: skip


def test_the_same_seed_makes_the_same_recording(short, tmp_path):
    again, other = record(tmp_path), record(tmp_path, "--seed", "6")
    assert again == other  # the second overwrote the first: only its bytes count below
    assert other.read_bytes() != short.read_bytes()
    assert record(tmp_path).read_bytes() == short.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["short.mcap"]


@needs_bench
def test_other_sources_rates_and_sizes(tmp_path):
    found = read(
        record(tmp_path, "--digits", "mnist-test", "--voices", "fsdd-test", "--rate-hz", "30", "--size", "640x480")
    )
    assert len(found["/camera/image"]) == 180
    picture = scenes.cv2.imdecode(found["/camera/image"][0][1].data, scenes.cv2.IMREAD_COLOR)
    assert picture.shape == (480, 640, 3)


def test_a_wrong_size_or_ending_is_one_line_and_not_a_traceback(tmp_path):
    wrong = CliRunner().invoke(make_recording.main, ["--out", str(tmp_path / "a.mcap"), "--size", "huge"])
    assert wrong.exit_code == 2
    assert "'huge' is not WIDTHxHEIGHT" in wrong.output
    wrong = CliRunner().invoke(make_recording.main, ["--out", str(tmp_path / "a.bag")])
    assert wrong.exit_code == 1
    assert "not an .mcap file" in wrong.output


def prepare(out: Path, cache: Path) -> Path:
    done = CliRunner().invoke(prepare_av_digits.main, ["--quick", "--out", str(out), "--cache", str(cache)])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def assert_keeps_the_contract(folder: Path) -> dict:
    meta = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8"))
    assert meta["labels"] == list(sources.LABELS)
    camera, audio = meta["modalities"]
    assert (camera["name"], camera["kind"], audio["name"], audio["kind"]) == ("camera", "image", "audio", "audio")
    assert list(meta["parts"]) == ["encoders", "fusion", "calibration", "test"]
    for part, sizes in meta["parts"].items():
        images, windows = (
            np.load(folder / part / f"{m}.npy", mmap_mode="r", allow_pickle=False) for m in ("camera", "audio")
        )
        assert images.shape == (sizes["camera"], camera["height"], camera["width"], 3)
        assert images.dtype == np.uint8
        assert windows.shape == (sizes["audio"], round(audio["rate_hz"] * audio["window_s"]))
        assert windows.dtype == np.int16
        for m in ("camera", "audio"):
            labels = np.load(folder / part / f"{m}_labels.npy", allow_pickle=False)
            assert labels.shape == (sizes[m],)
            assert labels.dtype == np.int16
            assert labels.min() == -1
            assert labels.max() <= 9
            corpora, clusters = (
                np.load(folder / part / f"{m}_{column}.npy", allow_pickle=False) for column in ("sources", "clusters")
            )
            titles = next(of["sources"] for of in meta["modalities"] if of["name"] == m)
            assert ((corpora == -1) == (labels == -1)).all()
            assert set(corpora[labels >= 0]) == set(range(len(titles)))
            assert all(len(set(labels[clusters == cluster])) == 1 for cluster in set(clusters))
    return meta


@needs_bench
def test_a_quick_dataset_keeps_the_contract_and_its_seed(tmp_path, cache, espeak_ng):
    one, two = prepare(tmp_path / "one", cache), prepare(tmp_path / "two", cache)
    meta = assert_keeps_the_contract(one)
    assert len(meta["sources"]) == 4
    for file in sorted(one.rglob("*.npy")):
        assert file.read_bytes() == (two / file.relative_to(one)).read_bytes(), file.name


def test_without_the_benchmark_data_the_dataset_is_made_of_what_is_there(tmp_path, cache, espeak_ng, monkeypatch):
    monkeypatch.setenv("AECF_BENCH_DATA", str(tmp_path / "nowhere"))
    done = CliRunner().invoke(
        prepare_av_digits.main, ["--quick", "--out", str(tmp_path / "data"), "--cache", str(cache)]
    )
    assert done.exit_code == 0, done.output
    assert "no mnist.npz and fsdd.npz" in done.output
    meta = assert_keeps_the_contract(tmp_path / "data")
    assert len(meta["sources"]) == 2


def test_an_existing_dataset_is_not_overwritten_unasked(tmp_path):
    done = CliRunner().invoke(prepare_av_digits.main, ["--quick", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "--overwrite" in done.output
