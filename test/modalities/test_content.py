"""What the watches measure: synthetic faults of graded strength, and scenes and sounds that are none."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.audio.content import AudioContent, AudioWatch
from aecf_ros.modalities.image.content import ImageContent, ImageWatch
from aecf_ros.modalities.messages import digest
from aecf_ros.modalities.registry import MODALITIES

HEIGHT, WIDTH, RATE_HZ = 48, 64, 16_000
FRAME_NS = NANOSECONDS // 30
Picture = Callable[[np.ndarray], np.ndarray]
Sound = Callable[[np.ndarray], np.ndarray]


def scene(rng: np.random.Generator, contrast: float = 100.0, base: float = 100.0) -> np.ndarray:
    """A room: patches of several sizes with sharp edges, float (H, W, 3)."""
    image = np.full((HEIGHT, WIDTH, 3), base)
    for _ in range(25):
        top, left = rng.integers(0, HEIGHT - 6), rng.integers(0, WIDTH - 6)
        image[top : top + rng.integers(4, 20), left : left + rng.integers(4, 20)] = base + contrast * rng.uniform(
            -0.9, 1.2
        )
    return image


def frames(
    count: int,
    change: Picture = lambda image: image,
    noise: float = 2.0,
    after: int = 150,
    seed: int = 0,
    **look: float,
) -> Iterator[ImageContent]:
    """Measurements of ``count`` frames of one scene, of which those from ``after`` on are changed."""
    rng, watch = np.random.default_rng(seed), ImageWatch()
    still = scene(rng, **look)
    for i in range(count):
        image = still + rng.normal(0, noise, still.shape) if noise else still
        image = np.clip(np.round(change(image) if i >= after else image), 0, 255).astype(np.uint8)
        yield watch.look(digest(image.ravel(), False), image, i * FRAME_NS)


def kinds(content: ImageContent | AudioContent) -> set[str]:
    limits = MODALITIES["image"].thresholds if isinstance(content, ImageContent) else MODALITIES["audio"].thresholds
    return {c.kind for c in content.complaints(limits)}


def last_kinds(contents: Iterator[ImageContent | AudioContent]) -> set[str]:
    return kinds(list(contents)[-1])


def blur(sigma: float) -> Picture:
    return lambda image: cv2.GaussianBlur(image, (0, 0), sigma)


def noise(sigma: float, seed: int = 1) -> Picture:
    rng = np.random.default_rng(seed)
    return lambda image: image + rng.normal(0, sigma, image.shape)


# Pictures


def test_a_still_scene_before_a_noisy_sensor_never_repeats_and_a_copied_frame_does() -> None:
    assert not any(c.repeats for c in frames(1000, noise=0.5))
    copied = list(frames(5, noise=0.0))
    assert [bool(c.repeats) for c in copied] == [False, True, True, True, True]


def test_a_large_frame_that_differs_by_noise_alone_is_told_from_a_copy_by_a_sample_of_it() -> None:
    rng = np.random.default_rng(0)
    big = rng.integers(0, 256, 2_764_800, np.uint8)
    noisy = big + (rng.random(big.size) < 0.01).astype(np.uint8)
    assert digest(big, False) == digest(big.copy(), False) != digest(noisy, False)
    assert digest(big, False) != digest(big[:-1], False)


def test_one_changed_byte_of_a_compressed_frame_is_new_content() -> None:
    data = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8)
    other = data.copy()
    other[123_457] ^= 1
    assert digest(data, True) != digest(other, True)


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_scene_is_not_complained_about(seed: int) -> None:
    assert all(not kinds(c) for c in frames(300, seed=seed))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda image: image * 0.1, "dark"),
        (lambda image: image * 0.02, "dark"),
        (lambda image: image * 0.0, "dark"),
        (lambda image: image * 6 + 60, "overexposed"),
        (lambda image: image * 0 + 255, "overexposed"),
        (blur(1.2), "blurred"),
        (blur(2.5), "blurred"),
        (blur(5), "blurred"),
        (noise(15), "noisy"),
        (noise(30), "noisy"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_fault_of_clear_strength_is_named(change: Picture, kind: str, seed: int) -> None:
    assert last_kinds(frames(170, change, seed=seed)) == {kind}


@pytest.mark.parametrize(
    "change",
    [lambda image: image * 0.5, lambda image: image + 40, blur(0.4), noise(3), lambda image: image[:, ::-1]],
    ids=["half the light", "brighter", "slightly soft", "a little noise", "mirrored"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_mild_change_is_not(change: Picture, seed: int) -> None:
    assert last_kinds(frames(170, change, seed=seed)) == set()


def test_a_dim_room_with_a_lamp_in_it_is_not_dark() -> None:
    def night(image: np.ndarray) -> np.ndarray:
        image = image * 0.08
        image[5:15, 10:20] = 160
        return image

    assert last_kinds(frames(170, night)) == set()


def test_other_scenes_of_other_contrast_are_not_blurred() -> None:
    rng, watch = np.random.default_rng(3), ImageWatch()
    for i in range(60):
        still = scene(rng, contrast=rng.uniform(30, 110), base=rng.uniform(60, 140))
        for j in range(30):
            image = np.clip(still + rng.normal(0, 2, still.shape), 0, 255).astype(np.uint8)
            assert not kinds(watch.look(digest(image.ravel(), False), image, (30 * i + j) * FRAME_NS))


def test_a_textured_scene_is_not_noisy_and_panning_over_it_is_seen_once_at_most() -> None:
    rng, watch = np.random.default_rng(0), ImageWatch()
    plain, grass = scene(rng), rng.uniform(60, 180, (HEIGHT, WIDTH, 3))
    found = []
    for i in range(300):
        image = np.clip((plain if i < 150 else grass) + rng.normal(0, 2, plain.shape), 0, 255).astype(np.uint8)
        found.append(kinds(watch.look(digest(image.ravel(), False), image, i * FRAME_NS)))
    assert not any(found[:150]) and not any(found[151:])


def test_blur_is_still_blur_after_a_minute_of_it() -> None:
    assert last_kinds(frames(150 + 1800, blur(2.5))) == {"blurred"}


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 500), (3, 3), (224, 224), (600, 800)])
def test_pictures_of_any_size_are_measured(size: tuple[int, int]) -> None:
    rng, watch = np.random.default_rng(0), ImageWatch()
    for i in range(5):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        content = watch.look(digest(image.ravel(), False), image, i * FRAME_NS)
        assert np.isfinite([content.highlight, content.overexposed, content.noise]).all()


def test_zero_switches_every_check_of_pictures_off() -> None:
    from dataclasses import replace

    off = replace(MODALITIES["image"].thresholds, dark_below=0, overexposed_above=0, blur_below=0, noisy_above=0)
    for change in (lambda image: image * 0, lambda image: image * 0 + 255, blur(5), noise(30)):
        assert list(frames(170, change))[-1].complaints(off) == []


# Sound


def room(seconds: float, level_dbfs: float = -55.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 10 ** (level_dbfs / 20), round(seconds * RATE_HZ))


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Words of voiced sound with formants and gliding pitch, with pauses between them, in a quiet room."""
    rng, sound = np.random.default_rng(seed), room(seconds, seed=seed)
    at = 0.3
    while at < seconds - 0.8:
        time_s = np.arange(round(rng.uniform(0.25, 0.6) * RATE_HZ)) / RATE_HZ
        pitch_hz = rng.uniform(85, 240) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * time_s + rng.uniform(0, 6)))
        phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        formants_hz = rng.uniform(300, 800), rng.uniform(900, 2200)
        voice = sum(
            np.sin(k * phase) * sum(np.exp(-(((k * pitch_hz.mean() - f) / 250) ** 2)) for f in formants_hz)
            for k in range(1, 25)
        )
        voice *= np.hanning(len(voice)) * 0.15 / max(np.abs(voice).max(), 1e-9)
        start = round(at * RATE_HZ)
        sound[start : start + len(voice)] += voice
        at += len(voice) / RATE_HZ + rng.uniform(0.1, 0.8)
    return sound


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Chords without a pause, twice a second another."""
    rng, time_s = np.random.default_rng(seed), np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = room(seconds, -70, seed)
    for beat in range(round(seconds * 2)):
        part = slice(beat * RATE_HZ // 2, (beat + 1) * RATE_HZ // 2)
        for _ in range(3):
            note_hz = 110 * 2 ** (rng.integers(0, 36) / 12)
            for k in range(1, 5):
                sound[part] += 0.05 / k * np.sin(2 * np.pi * k * note_hz * time_s[part] + rng.uniform(0, 6))
    return sound


def heard(sound: np.ndarray, chunk_s: float = 0.1, rate_hz: int = RATE_HZ) -> Iterator[AudioContent]:
    """Measurements of a sound that came as S16 chunks."""
    watch, size = AudioWatch(), round(chunk_s * rate_hz)
    for i in range(len(sound) // size):
        pcm = np.clip(np.round(sound[i * size : (i + 1) * size] * 32767), -32768, 32767).astype("<i2")
        yield watch.listen(
            pcm.view(np.uint8), (pcm / 32768).astype(np.float32), rate_hz, round(i * chunk_s * NANOSECONDS)
        )


def hum(sound: np.ndarray, mains_hz: float, level: float) -> np.ndarray:
    time_s = np.arange(len(sound)) / RATE_HZ
    return sound + level * (
        np.sin(2 * np.pi * mains_hz * time_s)
        + 0.5 * np.sin(4 * np.pi * mains_hz * time_s + 1)
        + 0.3 * np.sin(6 * np.pi * mains_hz * time_s + 2)
    )


@pytest.mark.parametrize("chunk_s", [0.01, 0.032, 0.1, 0.5])
@pytest.mark.parametrize(
    "sound", [room, speech, music, lambda s, seed: room(s, -68, seed)], ids=["room", "speech", "music", "quiet room"]
)
def test_ordinary_sound_is_not_complained_about(sound: Callable, chunk_s: float) -> None:
    for seed in range(3):
        for content in heard(sound(12, seed=seed), chunk_s):
            assert not kinds(content) and not content.repeats


@pytest.mark.parametrize("chunk_s", [0.01, 0.1, 0.5])
def test_digital_silence_is_one_value_and_near_silent(chunk_s: float) -> None:
    quiet = list(heard(np.zeros(2 * RATE_HZ), chunk_s))
    assert all("same value" in c.repeats for c in quiet) and kinds(quiet[-1]) == {"silent"}


def test_a_stuck_converter_is_one_value_whatever_it_is() -> None:
    assert "same value" in list(heard(np.full(RATE_HZ, 0.3)))[-1].repeats


def test_a_chunk_that_is_held_and_renewed_is_old_sound_until_new_ones_follow_one_another() -> None:
    new = speech(4)
    held = new.copy()
    size = RATE_HZ // 10
    for i in range(10, 25):  # each chunk three times
        held[i * size : (i + 1) * size] = new[i // 3 * 3 * size : (i // 3 * 3 + 1) * size]
    repeats = [bool(c.repeats) for c in heard(held)]
    assert not any(repeats[:10]) and all(repeats[10:25]) and not any(repeats[25:])


@pytest.mark.parametrize("loop_s", [0.1, 0.5, 2.0, 6.0])
def test_a_loop_of_whole_chunks_is_heard_from_its_second_turn(loop_s: float) -> None:
    contents = list(heard(np.tile(speech(loop_s), 3)))
    turn = round(loop_s / 0.1)
    assert not any(c.repeats for c in contents[:turn]) and all(c.repeats for c in contents[turn:])


def test_what_was_heard_long_ago_is_forgotten() -> None:
    first = room(0.1)
    again = list(heard(np.concatenate([first, room(26, seed=1), first])))
    assert not again[-1].repeats


@pytest.mark.parametrize("gain", [15, 50])
@pytest.mark.parametrize("ceiling", [1.0, 0.4])
def test_speech_driven_into_a_limit_is_clipped_in_its_words(gain: float, ceiling: float) -> None:
    spoken = speech(6)
    contents, plain = list(heard(np.clip(spoken * gain, -ceiling, ceiling))), list(heard(spoken))
    loud = [c for c, before in zip(contents, plain, strict=True) if before.level_dbfs > -33]
    assert len(loud) > 8 and np.mean(["clipped" in kinds(c) for c in loud]) > 0.8
    assert any(complaint.averaged for c in contents for complaint in c.complaints(MODALITIES["audio"].thresholds))


def test_a_door_that_slams_is_clipped_for_too_short_to_count() -> None:
    sound = room(2)
    sound[RATE_HZ : RATE_HZ + 800] += 3 * np.sin(2 * np.pi * 80 * np.arange(800) / RATE_HZ)
    complaints = [x for c in heard(sound) for x in c.complaints(MODALITIES["audio"].thresholds) if x.kind == "clipped"]
    assert len(complaints) == 1 and not complaints[0].averaged


def test_a_loud_tone_below_full_scale_is_not_clipped() -> None:
    for tone_hz in (97.3, 440.0, 1234.5):
        tone = 0.9 * np.sin(2 * np.pi * tone_hz * np.arange(2 * RATE_HZ) / RATE_HZ) + room(2)
        assert all("clipped" not in kinds(c) for c in heard(tone))


@pytest.mark.parametrize(("attenuation_db", "silent"), [(0, False), (-10, False), (-40, True), (-80, True)])
def test_a_microphone_that_is_turned_down_becomes_near_silent(attenuation_db: float, silent: bool) -> None:
    contents = list(heard(room(2) * 10 ** (attenuation_db / 20)))
    assert all(("silent" in kinds(c)) is silent for c in contents[1:])


@pytest.mark.parametrize(("offset", "found"), [(0.0, False), (0.02, False), (0.1, True), (-0.1, True), (0.4, True)])
def test_a_constant_offset_is_named(offset: float, found: bool) -> None:
    assert all(("dc" in kinds(c)) is found for c in heard(speech(3) + offset))


@pytest.mark.parametrize("mains_hz", [50, 60, 49.9, 60.1])
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_hum_of_the_mains_under_speech_is_named_with_its_frequency(mains_hz: float, level: float) -> None:
    contents = list(heard(hum(speech(4), mains_hz, level)))[5:]
    named = [c for c in contents if "hum" in kinds(c)]
    assert len(named) > 0.7 * len(contents) and {c.hum_hz for c in named} == {round(mains_hz, -1)}


@pytest.mark.parametrize("pitch_hz", [50, 60, 100, 118, 120, 122])
@pytest.mark.parametrize("pause_s", [0.06, 0.3])
def test_a_voice_that_holds_a_multiple_of_the_mains_is_not_hum(pitch_hz: float, pause_s: float) -> None:
    time_s = np.arange(round(0.6 * RATE_HZ)) / RATE_HZ
    word = np.hanning(len(time_s)) ** 0.2 * 0.1 * sum(np.sin(2 * np.pi * k * pitch_hz * time_s) / k for k in (1, 2, 3))
    said = np.tile(np.concatenate([word, np.zeros(round(pause_s * RATE_HZ))]), 12)
    assert all("hum" not in kinds(c) for c in heard(said + room(len(said) / RATE_HZ)))


def test_the_hum_of_a_quiet_loudspeaker_is_not() -> None:
    assert all("hum" not in kinds(c) for c in heard(hum(room(4), 50, 0.0005)))


def onset(contents: list[AudioContent], kind: str, after: int) -> int | None:
    return next((i - after for i, c in enumerate(contents) if i >= after and kind in kinds(c)), None)


def test_a_microphone_turned_down_by_30_db_is_near_silent_in_its_words_too() -> None:
    sound = speech(12)
    sound[6 * RATE_HZ : 9 * RATE_HZ] *= 10 ** (-30 / 20)
    contents = list(heard(sound))
    assert onset(contents, "silent", 60) <= 9 and all("silent" not in kinds(c) for c in contents[:60] + contents[92:])


@pytest.mark.parametrize("level_dbfs", [-36, -28, -20])
def test_noise_over_speech_is_named_within_a_second_and_while_it_lasts(level_dbfs: float) -> None:
    sound = speech(12)
    sound[6 * RATE_HZ :] += room(6, level_dbfs, seed=9)
    contents = list(heard(sound))
    assert onset(contents, "noisy", 60) <= 9
    assert all("noisy" not in kinds(c) for c in contents[:60])


@pytest.mark.parametrize("rate_hz", [1, 400, 8000, 44_100, 48_000, 384_000])
def test_sound_of_any_rate_is_measured(rate_hz: int) -> None:
    watch, rng = AudioWatch(), np.random.default_rng(0)
    for i in range(20):
        samples = rng.normal(0, 0.01, max(1, rate_hz // 10)).astype(np.float32)
        content = watch.listen(samples.view(np.uint8), samples, rate_hz, i * NANOSECONDS // 10)
        assert np.isfinite([content.level_dbfs, content.hum, content.dc, content.clipped]).all()


# The shipped recording


def test_nothing_in_the_shipped_recording_is_complained_about(shipped_bundle: Path) -> None:
    from aecf_ros.core.bundle import load_manifest
    from aecf_ros.modalities.audio.messages import read_stamped_audio
    from aecf_ros.modalities.audio.pcm import decode_audio
    from aecf_ros.modalities.image.decode import decode_image, resize_image
    from aecf_ros.modalities.image.messages import read_compressed_image
    from aecf_ros.replay.bag.reader import open_bag

    manifest = load_manifest(shipped_bundle)
    eye, ear, info = ImageWatch(), AudioWatch(), None
    with open_bag(shipped_bundle / "demo.mcap") as bag:
        topics = bag.choose_topics(manifest)
        camera, sound, about = topics.streams["camera"], topics.streams["audio"], topics.infos["audio"]
        for recorded in islice(bag.messages([camera, sound, about]), 1000):
            message, now_ns = bag.deserialize(recorded), recorded.log_ns
            if recorded.topic == about:
                info = message
            elif recorded.topic == camera:
                raw = read_compressed_image(message, now_ns)
                image = resize_image(decode_image(raw).image, HEIGHT, WIDTH)
                content = eye.look(digest(np.asarray(raw.data), True), image, now_ns)
                assert not content.repeats and not content.complaints(MODALITIES["image"].thresholds)
            else:
                raw = read_stamped_audio(message, info, now_ns)
                chunk = decode_audio(raw)
                content = ear.listen(np.asarray(raw.data).view(np.uint8), chunk.samples, chunk.rate_hz, now_ns)
                assert not content.repeats and not content.complaints(MODALITIES["audio"].thresholds)
