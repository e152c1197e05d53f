"""One picture gives one vector, whichever door it comes in by and however its file stores it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data_fixtures import noise
from tests.zoo.feature_fixtures import tiny_encoder
from zoo.architectures import build
from zoo.data.addresses import open_dataset
from zoo.errors import DataError, InputError
from zoo.features.extract import embed, extract
from zoo.preprocessing.image import ImageInput, ImageTransform, to_rgb
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.sklearn import EncoderTransformer
from zoo.strict import Architecture

GREY = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(16)


@pytest.fixture(scope="module")
def skeleton_encoder():
    torch.manual_seed(0)
    network = Architecture(family="skeleton_gru", arguments={"hidden": 8, "layers": 1})
    return build(network, SkeletonInput()).eval()


def turned(mode: str = "RGB", **options) -> bytes:
    """A file whose EXIF orientation says to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = (255, 120, 0)
    return saved(Image.fromarray(pixels).convert(mode), exif=exif, **options)


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def animated() -> bytes:
    frames = [Image.fromarray(noise(seed, 20, 20)) for seed in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def transparent_palette() -> bytes:
    image = Image.fromarray(noise(1, 20, 20)).convert("P")
    return saved(image, transparency=3)


COLOUR = Image.fromarray(noise(0, 20, 30))
FILES = {
    "jpg turned": turned(format="JPEG"),
    "png turned": turned(),
    "tif turned": turned(format="TIFF"),
    "palette": saved(COLOUR.convert("P")),
    "palette with transparency": transparent_palette(),
    "alpha": saved(COLOUR.convert("RGBA")),
    "grey with alpha": saved(COLOUR.convert("LA")),
    "one bit": saved(COLOUR.convert("1")),
    "grey": saved(COLOUR.convert("L")),
    "16 bit": saved(Image.fromarray(GREY.astype(np.uint16) * 257)),
    "16 bit tif": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
    "float tif": saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "cmyk": saved(COLOUR.convert("CMYK"), "JPEG"),
    "cmyk tif": saved(COLOUR.convert("CMYK"), "TIFF"),
    "animated": animated(),
    "webp": saved(COLOUR, "WEBP"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_door_gives_the_same_vector(kind, encoder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    content = FILES[kind]
    suffix = Image.open(io.BytesIO(content)).format.lower()
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / f"x.{suffix}"
    path.write_bytes(content)
    pq.write_table(pa.table({"image": pa.array([content])}), tmp_path / "x.parquet")

    def vector(data):
        return embed(encoder, data, precision="fp32")

    rgb = np.array(to_rgb(content))
    seen = {
        "path": vector([path]),
        "text": vector([str(path)]),
        "bytes": vector([content]),
        "PIL": vector([Image.open(path)]),
        "PIL from bytes": vector([Image.open(io.BytesIO(content))]),
        "array": vector([rgb]),
        "array of them": vector(rgb[None]),
        "tensor": vector([torch.from_numpy(rgb).permute(2, 0, 1)]),
        "tensor of them": vector(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255),
        "folder": vector(open_dataset(tmp_path / "folder")),
        "parquet": vector(open_dataset(tmp_path / "x.parquet")),
        "transform of a path": encoder(encoder.transform()(path)[None]).detach().numpy(),
        "transform of a PIL image": encoder(encoder.transform()(Image.open(path))[None]).detach().numpy(),
        "scikit-learn, path": EncoderTransformer(encoder, precision="fp32").fit_transform([str(path)]),
        "scikit-learn, PIL": EncoderTransformer(encoder, precision="fp32").fit_transform([Image.open(path)]),
        "scikit-learn, array": EncoderTransformer(encoder, precision="fp32").fit_transform(rgb[None]),
        "scikit-learn, rows": EncoderTransformer(encoder, precision="fp32", image_shape=rgb.shape).fit_transform(
            rgb.reshape(1, -1)
        ),
    }
    for door, features in seen.items():
        np.testing.assert_allclose(features, seen["path"], rtol=1e-5, atol=1e-6, err_msg=door)


def test_hugging_face_gives_the_same_vector(encoder, tmp_path):
    pytest.importorskip("datasets")
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"image": pa.array([FILES["jpg turned"]])}), tmp_path / "set" / "train.parquet")
    features = embed(encoder, open_dataset(f"hf:{tmp_path / 'set'}", "train"))
    assert np.array_equal(features, embed(encoder, [FILES["jpg turned"]]))


def test_the_turned_picture_is_upright():
    for image in (FILES["jpg turned"], Image.open(io.BytesIO(FILES["jpg turned"]))):
        top = np.asarray(to_rgb(image))
        assert top.shape == (80, 40, 3) and top[:30].mean() > 100 > 10 > top[50:].mean()


def test_turning_happens_once():
    """A picture that a caller turned already keeps its place, and the caller's object is not changed."""
    from PIL import ImageOps

    image = Image.open(io.BytesIO(FILES["jpg turned"]))
    upright = ImageOps.exif_transpose(image)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(to_rgb(upright)))
    assert image.size == (80, 40) and np.array_equal(np.asarray(to_rgb(image)), np.asarray(to_rgb(image)))


# Expected 8-bit values of the same grey ramp, stored with other depths: the type says what is white.
DEPTHS = {
    "uint8": (GREY, GREY),
    "uint16": (GREY.astype(np.uint16) * 257, GREY),
    "dark uint16": (GREY.astype(np.uint16), GREY * 0),
    "float32": (GREY.astype(np.float32) / 255, GREY),
    "float16": ((GREY / 255).astype(np.float16), GREY),
    "bool": (GREY > 100, (GREY > 100) * 255),
}


@pytest.mark.parametrize("kind", DEPTHS)
def test_depth_follows_the_type(kind):
    array, expected = DEPTHS[kind]
    assert np.array_equal(np.asarray(to_rgb(array))[..., 0], expected)
    if array.dtype != np.float16:  # PIL has no such mode
        assert np.array_equal(np.asarray(to_rgb(Image.fromarray(array)))[..., 0], expected)
    if array.dtype != np.uint16:
        assert np.array_equal(np.asarray(to_rgb(torch.from_numpy(array)))[..., 0], expected)


def test_sixteen_bits_of_one_picture_agree_with_pil_on_colour():
    """PIL keeps the upper eight bits of a 16-bit colour file; an array of the same numbers must not differ."""
    deep = np.arange(0, 65536, 97, dtype=np.uint16)[:675].reshape(15, 15, 3)
    assert np.array_equal(np.asarray(to_rgb(deep)), deep >> 8)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.fromarray(GREY.astype(np.float32) * 1000), r"float images must lie in \[0, 1\].*divide by"),
        (GREY.astype(np.float64), r"float images must lie in \[0, 1\]"),
        (np.full((4, 4), np.nan), "without NaN"),
        (Image.fromarray(GREY.astype(np.int32)), "got int32, whose white level is unknown"),
        (GREY.astype(np.int64), "got int64, whose white level is unknown"),
        (np.zeros((3, 20, 20), np.uint8), r"transpose\(1, 2, 0\)"),
        (torch.zeros(3, 20, 3), r"20 x 3 pixels with 3 channels first or 3 x 20 pixels with 3 channels last"),
        ({"image": COLOUR}, "got a dict with the keys 'image'"),
        (np.zeros((20, 20, 2), np.uint8), "expected an image array"),
    ],
)
def test_what_nobody_can_know_is_refused(picture, message):
    with pytest.raises(InputError, match=message):
        to_rgb(picture)


def test_a_truncated_picture_that_pil_had_only_opened(tmp_path):
    content = saved(Image.fromarray(noise(0, 60, 60)), "JPEG")
    (tmp_path / "x.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot be decoded"):
        to_rgb(Image.open(tmp_path / "x.jpg"))


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((32, 40, 3), np.uint8),
        np.zeros((32, 40, 1), np.uint8),
        np.zeros((3, 32, 40), np.uint8),
        torch.rand(3, 32, 32),
        torch.rand(32, 32, 3),
    ],
)
def test_one_picture_is_not_taken_for_many(picture, encoder):
    with pytest.raises(InputError, match=r"either one picture \(.*\) or \d+ grey pictures of .*; write \[x"):
        extract(encoder, picture)


def test_scikit_learn_takes_no_single_picture(encoder):
    with pytest.raises(InputError, match=r"either one picture \(H, W, C\) or 32 grey pictures of 40 x 3"):
        EncoderTransformer(encoder).fit_transform(np.zeros((32, 40, 3), np.uint8))
    # Its first axis always counts samples, so three grey pictures are no question there.
    assert len(EncoderTransformer(encoder).fit_transform(np.zeros((3, 32, 40), np.uint8))) == 3


def test_a_stack_with_channels_first_is_refused_by_name(encoder):
    with pytest.raises(InputError, match=r"transpose\(0, 2, 3, 1\)"):
        extract(encoder, np.zeros((5, 3, 32, 32), np.uint8))
    assert extract(encoder, torch.rand(5, 3, 32, 32)).features.shape[0] == 5


def test_skeletons_are_never_turned_into_pixels(skeleton_encoder):
    x = np.random.default_rng(0).random((3, 30, 20, 3)) * 3 - 1.5
    expected = embed(skeleton_encoder, list(x))
    fit = EncoderTransformer(skeleton_encoder).fit_transform
    for given in (x, list(x), x.astype(np.float32), x.astype(np.float16)):
        np.testing.assert_allclose(fit(given), expected, atol=2e-3 if np.asarray(given).dtype == np.float16 else 1e-5)
    rows = EncoderTransformer(skeleton_encoder, image_shape=(-1, 20, 3)).fit_transform(x.reshape(3, -1))
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    with pytest.raises(InputError, match="pixel_range is for images"):
        EncoderTransformer(skeleton_encoder, pixel_range=(-2, 2)).fit(x)
    with pytest.raises(InputError, match=r"is one sequence \(T, V, 3\)"):
        fit(x[0])
    with pytest.raises(InputError, match=r"image_shape=\(-1, 20, 3\)"):
        fit(x.reshape(3, -1))


def test_the_batch_size_changes_no_vector_beyond_rounding(encoder, skeleton_encoder):
    images = np.stack([noise(seed, 16, 16) for seed in range(11)])
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(frames, 20, 3)) for frames in (3, 30, 7, 18, 1)]
    for network, data in ((encoder, images), (skeleton_encoder, sequences)):
        whole = embed(network, data, batch_size=64, precision="fp32")
        for batch_size in (1, 2, 3):
            np.testing.assert_allclose(
                embed(network, data, batch_size=batch_size, precision="fp32"), whole, rtol=1e-4, atol=1e-5
            )


def test_a_fingerprint_sees_what_a_picture_shows(encoder):
    """Two palettes with the same indices, two orientations of the same pixels: other pictures, other fingerprints."""
    first, second = (Image.fromarray(GREY[:8, :8]).convert("P") for _ in range(2))
    second.putpalette([255 - i // 3 for i in range(768)])
    upright = Image.open(io.BytesIO(saved(Image.open(io.BytesIO(FILES["png turned"])))))
    assert upright.getexif().get(0x0112) is None
    found = {extract(encoder, [image]).fingerprint for image in (first, second, upright)}
    assert len(found | {extract(encoder, [Image.open(io.BytesIO(FILES["png turned"]))]).fingerprint}) == 4


def test_transform_takes_every_kind():
    transform = ImageTransform(ImageInput(size=(16, 16)))
    expected = transform(COLOUR)
    for picture in (np.asarray(COLOUR), FILES["webp"]):
        assert transform(picture).shape == expected.shape
    assert torch.equal(transform(np.asarray(COLOUR)), expected)
