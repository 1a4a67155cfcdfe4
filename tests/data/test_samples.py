import logging

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare
from skimage import data

import keras_psr.data.samples
from keras_psr.data.samples import Sample, SampleStream
from keras_psr.data.sources import Picture, open_source
from keras_psr.errors import ConfigError, DataError
from keras_psr.images.pixels import make_low_res

SHAPES = [(32, 40), (64, 48), (24, 96)]


def held(*arrays):
    """Pictures that are in memory already."""
    return [Picture(f"picture {i}", *array.shape[:2], lambda array=array: array) for i, array in enumerate(arrays)]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stream(seed=0, **options):
    pictures = held(*(noise(*shape, seed=i) for i, shape in enumerate(SHAPES)))
    return SampleStream(pictures, **{"scale": 4, "crop": 24, "seed": seed, **options})


def assert_pairs_equal(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sample_depends_on_seed_and_index_alone():
    forwards, again = stream(), stream()
    samples = [forwards.sample(index) for index in range(50)]
    assert samples == [again.sample(index) for index in reversed(range(50))][::-1]
    for index in (49, 3, 17):
        assert_pairs_equal(forwards.crops(samples[index]), again.crops(again.sample(index)))
    assert len(set(samples)) > 45
    assert samples != [stream(seed=1).sample(index) for index in range(50)]


def test_crops_are_cut_from_the_picture():
    picture = noise(40, 56)
    low_res, high_res = SampleStream(held(picture), scale=4, crop=24).crops(Sample(0, 4, 28, 0))
    assert low_res.shape == (6, 6, 3) and low_res.dtype == high_res.dtype == np.uint8
    np.testing.assert_array_equal(high_res, picture[4:28, 28:52])


@pytest.mark.parametrize(("scale", "top", "left"), [(1, 20, 8), (1, 0, 32), (4, 0, 8)])
def test_the_input_may_show_what_surrounds_the_crop_mirrored_at_the_border(scale, top, left):
    picture, surround = data.astronaut()[:64, 60:116], 40 // scale
    whole = np.pad(make_low_res(picture, scale), [(surround, surround), (surround, surround), (0, 0)], mode="symmetric")
    crops = SampleStream(held(picture), scale=scale, crop=24, surround=surround)
    low_res, high_res = crops.crops(Sample(0, top, left, 0))
    row, column, size = top // scale, left // scale, 24 // scale + 2 * surround
    np.testing.assert_array_equal(low_res, whole[row : row + size, column : column + size])
    np.testing.assert_array_equal(high_res, picture[top : top + 24, left : left + 24])
    inputs, targets = next(iter(crops.dataset(batch_size=2, first_sample=0, num_steps=1)))
    assert inputs.shape == (2, size, size, 3) and targets.shape == (2, 24, 24, 3)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("blur_sigma", [0.0, 1.0, 2.5])
def test_low_res_crops_are_crops_of_the_low_res_picture_up_to_its_border(scale, blur_sigma):
    picture, crop = data.astronaut()[:128, 60:220], 6 * scale
    whole = make_low_res(picture, scale, blur_sigma)
    crops = SampleStream(held(picture), scale=scale, crop=crop, blur_sigma=blur_sigma)
    for row in (0, 1, 5, whole.shape[0] - 6):
        for column in (0, 3, whole.shape[1] - 6):
            low_res, _ = crops.crops(Sample(0, row * scale, column * scale, 0))
            np.testing.assert_array_equal(low_res, whole[row : row + 6, column : column + 6])


def test_orientations_are_the_eight_of_a_square_and_turn_both_alike():
    smooth = data.astronaut()[:96, 180:276]
    crops = SampleStream(held(smooth), scale=4, crop=48)
    low_res, high_res = crops.crops(Sample(0, 8, 12, 0))
    turned = {}
    for orientation in range(8):
        low, high = crops.crops(Sample(0, 8, 12, orientation))
        block_means = high.reshape(12, 4, 12, 4, 3).mean(axis=(1, 3))
        assert np.abs(block_means - low).mean() < 4, "low and high resolution are turned differently"
        turned[high.tobytes()] = low.tobytes()
    assert len(turned) == len(set(turned.values())) == 8
    for expected in (high_res[::-1], high_res[:, ::-1], high_res[::-1, ::-1], high_res.swapaxes(0, 1)):
        assert expected.tobytes() in turned


def test_pictures_are_drawn_in_proportion_to_their_area():
    crops, num_draws = stream(), 2000
    counts = np.bincount([crops.sample(index).picture for index in range(num_draws)], minlength=3)
    areas = np.array([height * width for height, width in SHAPES])
    assert chisquare(counts, areas / areas.sum() * num_draws).pvalue > 0.001


def test_positions_and_orientations_are_equally_likely():
    crops, num_draws = SampleStream(held(noise(35, 31)), scale=4, crop=24), 3000
    samples = [crops.sample(index) for index in range(num_draws)]
    assert {sample.top for sample in samples} == {0, 4, 8} and {sample.left for sample in samples} == {0, 4}
    places = np.bincount([2 * sample.top // 4 + sample.left // 4 for sample in samples])
    assert len(places) == 3 * 2 and chisquare(places).pvalue > 0.001
    assert chisquare(np.bincount([sample.orientation for sample in samples], minlength=8)).pvalue > 0.001


def test_a_picture_as_large_as_the_crop_is_used_whole():
    picture = noise(24, 24)
    crops = SampleStream(held(picture), scale=4, crop=24)
    assert {(crops.sample(i).top, crops.sample(i).left) for i in range(20)} == {(0, 0)}


def test_small_pictures_are_left_out_and_named_once(caplog):
    with caplog.at_level(logging.WARNING):
        crops = SampleStream(held(noise(1, 1), noise(30, 30), noise(23, 99)), scale=4, crop=24)
        assert {crops.sample(index).picture for index in range(20)} == {0}
    assert [picture.name for picture in crops.pictures] == ["picture 1"]
    (warning,) = caplog.messages
    assert warning.startswith("2 pictures left out:")
    assert "picture 0: 1x1 is smaller than the crop of 24x24" in warning and "picture 2: 23x99" in warning


def test_nothing_but_small_pictures_is_refused():
    with pytest.raises(DataError, match=r"None of 2 pictures is as large as the crop, 24x24\. Use a smaller --crop\."):
        SampleStream(held(noise(1, 1), noise(23, 40)), scale=4, crop=24)


def test_a_file_that_vanishes_is_replaced_and_named_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(keras_psr.data.samples, "CACHE_BYTES", 0)
    for name in ("here.png", "there.png"):
        Image.fromarray(noise(40, 40)).save(tmp_path / name)
    crops, untouched = (SampleStream(open_source(str(tmp_path)), scale=4, crop=24) for _ in range(2))
    before = [untouched.sample(index) for index in range(40)]
    (tmp_path / "there.png").unlink()
    with caplog.at_level(logging.WARNING):
        after = [crops.sample(index) for index in range(40)]
    assert {sample.picture for sample in before} == {0, 1} and {sample.picture for sample in after} == {0}
    assert all(old == new for old, new in zip(before, after, strict=True) if old.picture == 0)
    (warning,) = caplog.messages
    assert warning.startswith("1 picture left out:") and "there.png" in warning


def test_a_picture_that_turns_out_small_is_replaced_and_named_once(caplog):
    tiny = Picture("tfds:some[7]", 480, 640, lambda: noise(10, 99))
    with caplog.at_level(logging.WARNING):
        crops = SampleStream([tiny, *held(noise(40, 40))], scale=4, crop=24)
        assert {crops.sample(index).picture for index in range(20)} == {1}
    assert caplog.messages == ["1 picture left out:\n  tfds:some[7]: 10x99 is smaller than the crop of 24"]


def test_pictures_of_which_none_can_be_decoded_are_refused_at_once(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(noise(64, 64)).save(whole)
    (tmp_path / "truncated.jpg").write_bytes(whole.read_bytes()[:-2000])
    whole.unlink()
    with pytest.raises(DataError, match=r"1 of 1 pictures cannot be read\. Check the source\."):
        SampleStream(open_source(str(tmp_path)), scale=4, crop=24)


def test_pictures_are_decoded_once_within_the_bound_of_memory(monkeypatch):
    reads = []
    arrays = [noise(32, 32), noise(32, 32, seed=1)]

    def picture(index):
        return Picture(str(index), 32, 32, lambda: reads.append(index) or arrays[index])

    def count_reads(cache_bytes):
        monkeypatch.setattr(keras_psr.data.samples, "CACHE_BYTES", cache_bytes)
        reads.clear()
        crops = SampleStream([picture(0), picture(1)], scale=4, crop=24)
        crops.batch(0, 20)
        assert sum(pixels.nbytes + low[None].nbytes for pixels, low in crops._cache.values()) <= cache_bytes
        return sorted(reads.count(index) for index in (0, 1))

    both_versions = (32 * 32 + 8 * 8) * 3
    assert count_reads(2 * both_versions) == [1, 1]
    once, often = count_reads(both_versions)
    assert once == 1 and often > 5
    assert min(count_reads(both_versions - 1)) > 5


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 2}, {"blur_sigma": 1.0}, {"surround": 5}, {"degradation": "photo", "surround": 3}],
    ids=str,
)
def test_samples_do_not_depend_on_what_is_in_memory(options, monkeypatch):
    kept = stream(**options)
    monkeypatch.setattr(keras_psr.data.samples, "CACHE_BYTES", 0)
    decoded_anew = stream(**options)
    for index in range(20):
        assert_pairs_equal(kept.batch(index, 1), decoded_anew.batch(index, 1))
    assert kept._cache and not decoded_anew._cache


def test_a_picture_without_room_in_memory_is_not_shrunk_whole(monkeypatch):
    monkeypatch.setattr(keras_psr.data.samples, "CACHE_BYTES", 0)
    sides, make = [], make_low_res
    monkeypatch.setattr(
        keras_psr.data.samples, "make_low_res", lambda image, *rest: sides.append(len(image)) or make(image, *rest)
    )
    SampleStream(held(noise(400, 400)), scale=4, crop=24).batch(0, 5)
    assert len(sides) == 5 and max(sides) < 100


def test_smaller_crops_come_from_the_same_pictures_in_memory():
    reads, picture = [], noise(64, 64)
    counted = Picture("counted", 64, 64, lambda: reads.append(0) or picture)
    large = SampleStream([counted], scale=4, crop=48)
    small = large.with_crop(24)
    low_res, high_res = small.batch(0, 8)
    assert low_res.shape == (8, 6, 6, 3) and high_res.shape == (8, 24, 24, 3) and large.crop == 48
    assert_pairs_equal((low_res, high_res), SampleStream(held(picture), scale=4, crop=24).batch(0, 8))
    assert len(reads) == 1


def test_a_batch_is_its_samples_stacked():
    crops = stream()
    low_res, high_res = crops.batch(6, 3)
    assert low_res.shape == (3, 6, 6, 3) and high_res.shape == (3, 24, 24, 3)
    for offset in range(3):
        assert_pairs_equal((low_res[offset], high_res[offset]), crops.crops(crops.sample(6 + offset)))


def test_degraded_samples_depend_on_seed_and_index_alone():
    plain, degraded, again = stream(), stream(degradation="photo"), stream(degradation="photo")
    assert [degraded.sample(index) for index in range(9)] == [plain.sample(index) for index in range(9)]
    for index in (8, 3, 0):
        assert_pairs_equal(degraded.crops(degraded.sample(index)), again.crops(again.sample(index)))
        np.testing.assert_array_equal(degraded.crops(degraded.sample(index))[1], plain.crops(plain.sample(index))[1])
    low_res, high_res = degraded.batch(6, 3)
    assert low_res.shape == (3, 6, 6, 3) and high_res.shape == (3, 24, 24, 3) and low_res.dtype == np.uint8
    assert_pairs_equal((low_res, high_res), again.batch(6, 3))


def test_the_same_crop_is_degraded_anew_each_time_and_by_each_seed():
    smooth = data.astronaut()[:96, 180:276]
    streams = [SampleStream(held(smooth), scale=4, crop=48, seed=seed, degradation="photo") for seed in (0, 1)]
    clean, _ = SampleStream(held(smooth), scale=4, crop=48).crops(Sample(0, 8, 12, 0))
    versions = [crops.crops(Sample(0, 8, 12, 0, index))[0] for crops in streams for index in range(30)]
    degraded = [version.tobytes() for version in versions if version.tobytes() != clean.tobytes()]
    assert 40 < len(degraded) < 55 and len(set(degraded)) > len(degraded) - 3  # few are reduced and nothing else
    mean = np.mean(versions, axis=0)
    errors = {shift: np.abs(np.roll(mean, shift, (0, 1)) - clean).mean() for shift in ((0, 0), (0, 1), (1, 0), (-1, 0))}
    assert min(errors, key=errors.get) == (0, 0) and errors[0, 0] < 5, "it lies elsewhere in the picture"


def test_degraded_samples_are_turned_like_their_originals():
    smooth = data.astronaut()[:96, 180:276]
    crops = SampleStream(held(smooth), scale=4, crop=48, degradation="photo")
    upright, _ = crops.crops(Sample(0, 8, 12, 0, 5))
    for orientation in range(8):
        low, high = crops.crops(Sample(0, 8, 12, orientation, 5))
        assert np.abs(high.reshape(12, 4, 12, 4, 3).mean(axis=(1, 3)) - low).mean() < 16
        assert sorted(low.ravel()) == sorted(upright.ravel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degradation": "phone"}, r"degradation must be one of bicubic, photo\. Received: 'phone'\."),
        ({"degradation": "photo", "blur_sigma": 1.0}, "blur_sigma must be 0 with the degradation photo.*: 1.0"),
    ],
)
def test_degradations_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        stream(**options)


@pytest.mark.parametrize("first_step", [0, 3])
def test_the_dataset_is_the_batches_of_its_steps(first_step):
    crops = stream()
    batches = list(
        crops.dataset(batch_size=2, first_sample=2 * first_step, num_steps=6 - first_step).as_numpy_iterator()
    )
    assert len(batches) == 6 - first_step
    for step, batch in zip(range(first_step, 6), batches, strict=True):
        assert_pairs_equal(batch, stream().batch(2 * step, 2))


def test_the_dataset_says_its_shapes():
    low_res, high_res = stream(scale=2).dataset(batch_size=5, first_sample=0, num_steps=1).element_spec
    assert low_res.shape == (5, 12, 12, 3) and high_res.shape == (5, 24, 24, 3)
    assert low_res.dtype == high_res.dtype == "uint8"
