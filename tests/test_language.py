"""Concept sets, their sources, encoders, and the embedding of exemplars."""

import json
import sys
import unicodedata
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wwwlib import images, language
from wwwlib.language import encoders
from wwwlib.language.concept_sets import find_data_noun
from wwwlib.language.encoders import has_quick_gelu
from wwwlib.store import Store
from wwwlib.studies import metrics


class Toy:
    """An encoder with features computable by hand, which records its inputs."""

    name, dim = "toy", 4

    def __init__(self):
        self.texts, self.images = [], 0

    def preprocess(self, image):
        return torch.tensor(image.getpixel((0, 0)), dtype=torch.float32).view(3, 1, 1) / 255

    def encode_images(self, pixels):
        self.images += len(pixels)
        return F.normalize(F.pad(pixels.flatten(1), (0, 1), value=0.5), dim=1)

    def encode_texts(self, texts):
        self.texts += texts
        rows = [[len(text), text.count("a"), text.count(" "), 1.0] for text in texts]
        return F.normalize(torch.tensor(rows), dim=1)


# Concept sets


def test_words_are_cleaned_and_dropped_entries_are_recorded():
    concepts = language.ConceptSet(["  Hot  dog ", "", "cat", "HOT DOG", "\t", "cat", "hot_dog"])
    assert concepts.words == ("Hot dog", "cat", "hot_dog")
    assert concepts.repeated == ("HOT DOG", "cat")
    assert concepts.blank == 2
    assert len(concepts) == 3
    assert concepts.summary == (
        "concept list: 7 entries, 3 distinct concepts (2 repetitions and 2 blank entries dropped)"
    )


def test_composed_and_decomposed_accents_are_one_word():
    decomposed = unicodedata.normalize("NFD", "café")
    concepts = language.ConceptSet([decomposed, "café", "日本語", "<b>$x$</b>"])
    assert concepts.words == ("café", "日本語", "<b>$x$</b>")


def test_template_and_bare_template():
    concepts = language.ConceptSet(["cat", "{x} %s {"])
    assert concepts.sentences == ["A photo of a cat", "A photo of a {x} %s {"]
    assert concepts.bare_template == "A photo of a"
    assert language.ConceptSet(["cat"], "a {} on grass").bare_template == "a  on grass"


@pytest.mark.parametrize("template", ["A photo", "{} and {}", "{0}", ""])
def test_a_template_holds_exactly_one_place(template):
    with pytest.raises(ValueError, match="exactly one"):
        language.ConceptSet(["cat"], template)


@pytest.mark.parametrize("words", [[], ["", "  "]])
def test_an_empty_concept_set_is_refused(words):
    with pytest.raises(ValueError, match="has no word but"):
        language.ConceptSet(words)


def test_one_string_is_no_list_and_a_number_no_word():
    with pytest.raises(TypeError, match="one string 'cat'"):
        language.ConceptSet("cat")
    with pytest.raises(TypeError, match=r"Entry 2 .* is 3; give strings"):
        language.ConceptSet(["cat", 3])


def test_a_paragraph_is_refused_with_its_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("cat\n\n" + "very " * 199 + "long\n")
    with pytest.raises(ValueError, match=r"Line 3 of the words\.txt, 'very .* has 999 characters"):
        language.from_file(path)


MARKS = ["\0", "\x1b", "\x9b", "\u202e", "\u2066", "\u200f", "\u200b", "\ufeff", "\udc80"]


@pytest.mark.parametrize("mark", MARKS)
def test_words_with_control_characters_are_refused(mark):
    """Breaks if UTF-16 is read as UTF-8, or a word can colour a terminal or turn a line around."""
    with pytest.raises(ValueError, match=r"Line 2 of the concept list, .* has the control char"):
        language.ConceptSet(["cat", f"d{mark}og"])
    joined = ("می\u200cخواهم", "👩\u200d🚀", "na\u00efve", "a\tb")
    assert len(language.ConceptSet(joined)) == 4


def test_files_of_another_encoding_or_of_one_line_are_refused_at_once(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("cat\ndog\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"Line 1 of the words.txt, .*'\\x00'; .*UTF-8"):
        language.from_file(path)
    path.write_text("cat " * 1_000_000)
    with pytest.raises(ValueError, match=r"Line 1 .* has 4,000,000 characters; .* at most 500"):
        language.from_file(path)


def test_a_concept_set_is_shown_in_one_line():
    words = [f"word {i}" for i in range(50_000)]
    assert repr(language.ConceptSet(words)) == (
        "ConceptSet('concept list': 50000 concepts, 'word 0', 'word 1', 'word 2', ...; "
        "'A photo of a {}')"
    )


def test_the_digest_depends_on_words_order_and_template_but_not_on_the_source(tmp_path):
    (tmp_path / "words.txt").write_text("cat\ndog\ncat\n")
    base = language.ConceptSet(["cat", "dog"])
    assert base.digest == language.from_file(tmp_path / "words.txt").digest
    others = [
        language.ConceptSet(["dog", "cat"]),
        language.ConceptSet(["cat", "dog"], "a {}"),
        language.ConceptSet(["cat, dog"]),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 4


def test_files_from_windows_and_with_a_byte_order_mark_read_the_same(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffcat\r\nhälfte\r\n".encode())
    assert language.from_file(path).words == ("cat", "hälfte")


def test_files_that_cannot_be_read_are_errors_with_a_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.txt"):
        language.from_file(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"'latin\.txt' is not UTF-8 text \(byte 3\)"):
        language.from_file(tmp_path / "latin.txt")


# Embedding texts


def test_embedding_is_batched_in_order_and_of_unit_norm():
    encoder = Toy()
    concepts = language.ConceptSet([f"a{'a' * i}" for i in range(10)])
    t, t0 = concepts.embed(encoder, batch_size=3)
    assert t.shape == (10, 4)
    assert t0.shape == (4,)
    assert torch.allclose(t, Toy().encode_texts(concepts.sentences))
    assert torch.allclose(t0, Toy().encode_texts(["A photo of a"])[0])
    assert encoder.texts == ["A photo of a", *concepts.sentences]


def test_texts_are_encoded_again_only_if_words_template_or_encoder_change(tmp_path):
    encoder, store = Toy(), Store(tmp_path)
    concepts = language.ConceptSet(["cat", "dog"])
    first = concepts.embed(encoder, store)
    assert len(encoder.texts) == 3
    again = concepts.embed(encoder, store)
    assert len(encoder.texts) == 4, "the bare template, which is compared"
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    language.ConceptSet(["cat"]).embed(encoder, store)
    language.ConceptSet(["cat", "dog"], "a {}").embed(encoder, store)
    assert len(encoder.texts) == 9
    encoder.name = "other"
    concepts.embed(encoder, store)
    assert len(encoder.texts) == 12


class Namesake(Toy):
    """Another encoder under the name of the first."""

    def encode_texts(self, texts):
        return super().encode_texts(texts).flip(1)

    def encode_images(self, pixels):
        return super().encode_images(pixels).flip(1)


def test_features_of_an_encoder_of_the_same_name_are_not_reused(tmp_path, probe):
    concepts, options = language.ConceptSet(["cat", "dog"]), {"progress": False}
    made = []
    for store in (Store(tmp_path / "store"), None):
        for encoder in (Toy(), Namesake()):
            features = language.image_features(encoder, probe, [1, 2], store=store, **options)
            made.append((concepts.embed(encoder, store)[0], features))
    for own, namesake, afresh in zip(made[0], made[1], made[3], strict=True):
        assert torch.equal(namesake, afresh) and not torch.equal(namesake, own)


def test_an_interrupted_embedding_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("wwwlib.language.encoders.CHECKPOINT", 2)
    concepts = language.ConceptSet([f"a{'a' * i}" for i in range(20)])
    whole, _ = concepts.embed(Toy(), Store(tmp_path / "whole"), batch_size=2)
    encoder, store = Toy(), Store(tmp_path / "resumed")
    sound = encoder.encode_texts

    def dies(texts):
        if len(encoder.texts) == 11:
            raise KeyboardInterrupt
        return sound(texts)

    encoder.encode_texts = dies
    with pytest.raises(KeyboardInterrupt):
        concepts.embed(encoder, store, batch_size=2)
    encoder.texts, encoder.encode_texts = [], sound
    resumed, _ = concepts.embed(encoder, store, batch_size=2)
    assert torch.equal(resumed, whole)
    assert encoder.texts == ["A photo of a", *concepts.sentences[8:]]


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (torch.ones(1, 4), "norm 2;"),
        (torch.full((1, 4), torch.nan), "norm nan"),
        (torch.ones(2, 4) / 2, r"returned \(2, 4\) for 1 inputs; .* shape \(1, 4\)"),
        (torch.ones(2) / 2, r"returned \(2,\) for 1 inputs"),
        (torch.ones(1, 8) / 8**0.5, r"returned \(1, 8\) for 1 inputs"),
        (None, "returned NoneType for 1 inputs"),
    ],
)
def test_features_of_an_encoder_are_validated(features, sentence):
    encoder = Toy()
    encoder.encode_texts = lambda texts: features
    with pytest.raises(ValueError, match=sentence):
        language.ConceptSet(["cat", "dog"]).embed(encoder)


# Sources


def test_classes_and_synonyms(tmp_path):
    names = ("tench, Tinca tinca", "crane, Crane", "crane")
    truth = [["tench", "Tinca tinca"], ["crane"], ["crane"]]
    target = SimpleNamespace(name="net", classes=names)
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(names) + "\n")
    assert language.synonyms(names) == language.synonyms(target) == truth
    assert language.synonyms(path) == truth
    assert language.synonyms([["tench", "Tinca tinca"], ["crane", "Crane"], ["crane"]]) == truth
    assert metrics.truth("classes", target) == truth


def test_concept_sets_are_found_by_name():
    target = SimpleNamespace(name="net", classes=("tench, Tinca tinca", "crane"))
    own, known = (language.concept_set(name, target) for name in ("classes", "imagenet"))
    assert own.words == ("tench", "Tinca tinca", "crane") and own.source == "classes of net"
    assert known.words[:2] == ("tench", "Tinca tinca") and len(known) > 1000
    for name in ("broden", "places365", "file"):
        with pytest.raises(ValueError, match=f"needs a file: write {name}:path"):
            language.concept_set(name, target)
    concepts = language.concept_set("classes", target)
    assert concepts.words == ("tench", "Tinca tinca", "crane")
    assert concepts.source == "classes of net"
    with pytest.raises(ValueError, match="Class 1 has no name"):
        language.synonyms(["cat", " "])
    with pytest.raises(ValueError, match="no class names"):
        language.synonyms([])


def test_imagenet_synsets_come_without_download():
    synsets = images.imagenet_synsets()
    assert len(synsets) == 1000
    assert synsets["n01440764"] == ("tench", "Tinca tinca")
    assert [w for w, lemmas in synsets.items() if lemmas == ("crane",)] == [
        "n02012849",
        "n03126707",
    ]
    words = language.concept_set("imagenet", None)
    assert words.words[:2] == ("tench", "Tinca tinca") and words.source == "ImageNet"
    with pytest.raises(ValueError, match="'imagenet' names 1000 classes, but net has 1"):
        metrics.truth("imagenet", SimpleNamespace(name="net", classes=("tench",)))
    ordered = tuple(lemmas[0] for lemmas in synsets.values())
    spelled = SimpleNamespace(name="net", classes=("a fish", *ordered[1:]))
    assert metrics.truth("imagenet", spelled)[0] == ["tench", "Tinca tinca"]
    with pytest.raises(ValueError, match="has 'tench' as class 0, but net as class 999"):
        metrics.truth("imagenet", SimpleNamespace(name="net", classes=ordered[::-1]))


@pytest.mark.real
def test_imagenet_labels_agree_with_timm_but_for_the_cranes(real):
    labels = language.synonyms(real / "labels" / "imagenet_labels.txt")
    shipped = language.synonyms(images.imagenet_synsets().values())
    assert [i for i in range(1000) if labels[i] != shipped[i]] == [134, 517]


@pytest.mark.real
def test_broden_and_places_counts(real):
    broden = language.from_file(real / "labels" / "broden_labels_clean.txt")
    assert (len(broden), len(broden.repeated)) == (1153, 44)
    paper = language.places365(real / "labels" / "categories_places365.txt")
    clean = language.places365(real / "labels" / "categories_places365.txt", "clean")
    assert len(paper) == len(clean) == 365
    place = paper.words.index("balcony-exterior")
    assert clean.words[place] == "balcony exterior"


def test_places_readings(tmp_path):
    path = tmp_path / "places.txt"
    path.write_text("/a/airplane_cabin 0\n/b/balcony/exterior 1\n")
    assert language.places365(path).words == ("airplane_cabin", "balcony-exterior")
    assert metrics.places365_truth(path) == [["airplane_cabin"], ["exterior"]]
    assert language.places365(path, "clean").words == ("airplane cabin", "balcony exterior")
    assert metrics.places365_truth(path, "clean") == [["airplane cabin"], ["balcony exterior"]]
    with pytest.raises(ValueError, match="reading is 'tidy'; use one of paper, clean"):
        language.places365(path, "tidy")
    path.write_text("airfield 0\n")
    with pytest.raises(ValueError, match=r"Line 1 .* 'airfield 0'; expected a scene"):
        language.places365(path)


NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by
00001740 03 n 01 entity 0 002 ~ 00001930 n 0000 ~ 00002137 n 0000 | that which exists | truly
00001930 03 n 02 hot_dog 0 Frank 1 002 @ 00001740 n 0000 + 00692347 v 0101 | a sausage
00002137 03 n 01 Entity 0 001 @i 00001740 n 0000 | another meaning
"""


def test_wordnet_is_parsed(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    synsets = language.read_synsets(tmp_path)
    assert list(synsets) == ["n00001740", "n00001930", "n00002137"]
    assert synsets["n00001930"].lemmas == ("hot dog", "Frank")
    assert [s.hypernyms for s in synsets.values()] == [(), ("n00001740",), ("n00001740",)]
    first = language.wordnet_nouns(tmp_path / "data.noun")
    assert first.words == ("entity", "hot dog")
    assert first.repeated == ("Entity",)


def test_wordnet_is_found_through_environment_variables(tmp_path, monkeypatch):
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    (folder / "data.noun").write_text(NOUNS)
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert len(language.wordnet_nouns()) == 2
    monkeypatch.delenv("NLTK_DATA")
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert len(language.wordnet_nouns()) == 2


def test_wordnet_that_is_missing_or_broken_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        language.wordnet_nouns(tmp_path)
    (tmp_path / "data.noun").write_text(NOUNS + "00002 broken line\n")
    with pytest.raises(ValueError, match=r"Line 5 of .* '00002 broken line', is no noun synset"):
        language.wordnet_nouns(tmp_path)


@pytest.fixture(scope="module")
def wordnet():
    try:
        return find_data_noun()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_wordnet_counts(wordnet):
    """The paper's first lemmas, and for comparison the lemmas of all synsets."""
    nouns = language.wordnet_nouns(wordnet)
    assert (len(nouns) + len(nouns.repeated), len(nouns)) == (82_115, 67_186)
    assert "82,115 entries, 67,186 distinct" in nouns.summary
    synsets = language.read_synsets(wordnet).values()
    assert sum(len(synset.lemmas) for synset in synsets) == 146_347
    assert len({language.fold(word) for one in synsets for word in one.lemmas}) == 117_798


# Encoders


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with random weights in the folder layout that open_clip reads."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 32,
                "patch_size": 16,
                "width": 32,
                "layers": 1,
                "head_width": 16,
            },
            "text_cfg": {
                "context_length": 12,
                "vocab_size": 49408,
                "width": 32,
                "heads": 2,
                "layers": 1,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.CLIP(**config["model_cfg"])
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def clip(clip_folder):
    return language.open_clip(f"local-dir:{clip_folder}")


def test_open_clip_from_a_folder_follows_the_protocol(clip, clip_folder):
    assert isinstance(clip, language.Encoder)
    assert clip.dim == 16
    pixels = clip.preprocess(Image.new("RGB", (50, 40), (255, 0, 0)))
    assert pixels.shape == (3, 32, 32)
    assert torch.allclose(pixels[:, 0, 0], torch.tensor([2.0, -2.0, -2.0]))
    v, t = clip.encode_images(pixels[None]), clip.encode_texts(["a cat", "A  CAT", "dog"])
    for features in (v, t):
        assert torch.allclose(features.norm(dim=1), torch.ones(len(features)))
        assert not features.is_inference()  # else a later autograd pass would refuse them
    assert torch.equal(t[0], t[1])
    assert not torch.equal(t[0], t[2])


def test_the_name_changes_with_weights_and_preprocessing_and_with_nothing_else(
    clip, clip_folder, tmp_path
):
    import shutil

    from safetensors.torch import load_file, save_file

    moved = tmp_path / "tiny"
    shutil.copytree(clip_folder, moved)
    assert language.open_clip(f"local-dir:{moved}").name == clip.name
    weights = moved / "open_clip_model.safetensors"
    state = load_file(weights)
    save_file(state | {"logit_scale": state["logit_scale"] + 1}, weights)
    other_weights = language.open_clip(f"local-dir:{moved}").name
    save_file(state, weights)
    config = moved / "open_clip_config.json"
    config.write_text(config.read_text().replace("squash", "shortest"))
    other_resizing = language.open_clip(f"local-dir:{moved}").name
    assert len({clip.name, other_weights, other_resizing}) == 3
    assert clip.name.startswith("open_clip/tiny@")


def test_a_text_that_would_be_cut_is_refused(clip):
    fits = " ".join(["cat"] * 10)
    assert clip.encode_texts([fits]).shape == (1, 16)
    with pytest.raises(ValueError, match=r"'cat .*' has 13 tokens, and .* reads at most 12"):
        clip.encode_texts(["dog", fits + " cat"])
    with pytest.raises(ValueError, match="no text to encode"):
        clip.encode_texts([])


def test_openai_weights_need_a_quickgelu_name():
    """Asked before any download: open_clip itself only warns, and computes the wrong features."""
    with pytest.raises(ValueError, match=r"trained with QuickGELU.*use 'ViT-B-32-quickgelu'"):
        language.open_clip("ViT-B-32", "openai")
    with pytest.raises(ValueError, match=r"trained with GELU.*use 'ViT-B-32'"):
        language.open_clip("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


def test_quick_gelu_of_a_folder_is_the_networks(clip_folder, tmp_path):
    import shutil

    quick = tmp_path / "quick"
    shutil.copytree(clip_folder, quick)
    config = json.loads((quick / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (quick / "open_clip_config.json").write_text(json.dumps(config))
    plain = language.open_clip(f"local-dir:{clip_folder}")
    other = language.open_clip(f"local-dir:{quick}")
    assert has_quick_gelu(other.network)
    assert not has_quick_gelu(plain.network)
    assert not torch.allclose(plain.encode_texts(["cat"]), other.encode_texts(["cat"]))
    assert plain.name != other.name


def test_errors_of_open_clip_give_a_remedy(clip_folder, tmp_path):
    with pytest.raises(ValueError, match="open_clip has no model 'ViT-Q-1'"):
        language.open_clip("ViT-Q-1", "openai")
    with pytest.raises(ValueError, match=r"None is no tag .* choose one of"):
        language.open_clip("ViT-B-32-quickgelu")
    with pytest.raises(ValueError, match=r"'w\.pt' is no tag"):
        language.open_clip("ViT-B-32", "w.pt")
    with pytest.raises(ValueError, match="brings its own weights"):
        language.open_clip(f"local-dir:{clip_folder}", "openai")
    with pytest.raises(FileNotFoundError, match=r"holds no open_clip_config\.json"):
        language.open_clip(f"local-dir:{tmp_path}")
    config = (clip_folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.safetensors.*open_clip_model"):
        language.open_clip(f"local-dir:{tmp_path}")


def test_a_model_and_tag_name_an_encoder(clip, clip_folder):
    """Both spellings of a CLIP reach open_clip; anything else is a user's function."""
    assert language.encoder(f"open_clip:local-dir:{clip_folder}").name == clip.name
    for spec in ("ViT-B-32/openai", "open_clip:ViT-B-32/openai"):
        with pytest.raises(ValueError, match="use 'ViT-B-32-quickgelu'"):
            language.encoder(spec)
    for spec in ("ViT-B-32", "open_clip:ViT-B-32"):
        with pytest.raises(ValueError, match="names no weights: write MODEL/TAG"):
            language.encoder(spec)
    with pytest.raises(FileNotFoundError, match="no file"):
        language.encoder("absent.py:make")


@pytest.mark.parametrize("spec", ["hf-hub:org/clip", "open_clip:hf-hub:org/clip"])
def test_repositories_of_the_hub_are_loaded_by_open_clip(spec, clip_folder, monkeypatch):
    """The repository is stood in for by a folder with the same files."""
    import open_clip.factory

    def fetch(repository, filename=None, **options):
        assert repository == "org/clip"
        names = [filename] if filename else ["open_clip_model.safetensors"]
        return str(clip_folder / names[0])

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", fetch)
    found = language.encoder(spec)
    assert found.name.startswith("open_clip/hf-hub:org/clip@") and found.dim == 16


def test_a_users_encoder_is_loaded_from_file_and_module(tmp_path, monkeypatch):
    (tmp_path / "own_encoder.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Own:\n"
        "    dim: int = 4\n"
        "    preprocess = encode_images = encode_texts = print\n"
        "def make(name='own'):\n"
        "    own = Own()\n"
        "    own.name = name\n"
        "    return own\n"
        "def half():\n"
        "    return object()\n"
    )
    path = tmp_path / "own_encoder.py"
    assert encoders.load(f"{path}:make").name == "own"
    assert encoders.load(f"{path}:make", name="mine").name == "mine"
    monkeypatch.syspath_prepend(tmp_path)
    assert encoders.load("own_encoder:make").dim == 4
    sys.modules.pop("own_encoder")
    with pytest.raises(TypeError, match="lacks name, dim, preprocess, encode_images, enc"):
        encoders.load(f"{path}:half")
    with pytest.raises(AttributeError, match="no function 'absent'"):
        encoders.load(f"{path}:absent")


@pytest.mark.parametrize(
    ("spec", "error", "sentence"),
    [
        ("encoder", ValueError, "write module:function or"),
        ("encoder:", ValueError, "write module:function or"),
        (":make", ValueError, "write module:function or"),
        ("no_such_module_here:make", ModuleNotFoundError, "No module named 'no_such_module_here'"),
        ("no_such_file.py:make", FileNotFoundError, r"no file 'no_such_file\.py'"),
    ],
)
def test_encoders_that_cannot_be_loaded_are_errors_with_a_reason(spec, error, sentence):
    with pytest.raises(error, match=sentence):
        encoders.load(spec)


def test_a_missing_sentence_encoder_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="all-mpnet-base-v2"):
        metrics.sentence_encoder(tmp_path / "absent")


@pytest.mark.real
def test_sentence_encoder(real_weights):
    encode = metrics.sentence_encoder(real_weights / "all-mpnet-base-v2")
    cat, kitten, bridge = encode(["cat", "kitten", "bridge"])
    assert torch.allclose(cat.norm(), torch.tensor(1.0))
    assert cat @ kitten > cat @ bridge


# Embedding exemplars


@pytest.fixture
def probe(tmp_path):
    """Eight images, each of one colour."""
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 200 - 20 * i, 5 * i)).save(tmp_path / f"{i}.png")
    return images.folder(tmp_path)


def test_each_distinct_exemplar_is_encoded_once_and_put_in_its_place(probe):
    index = torch.tensor([[3, 1, 3], [1, 7, 0], [5, -1, -1], [2, 4, 6], [0, 7, -1]])
    status = torch.tensor([0, 0, 2, 1, 0], dtype=torch.int8)
    exemplars = SimpleNamespace(index=index, status=status)
    encoder = Toy()
    v = language.embed_exemplars(encoder, probe, exemplars, batch_size=3, progress=False)
    assert encoder.images == 5  # 0, 1, 3, 7 and a fixed one
    expected = torch.zeros(5, 3, 4)
    for i in (0, 1, 4):
        for k in range(3):
            if index[i, k] >= 0:
                pixels = encoder.preprocess(probe.image(int(index[i, k])))
                expected[i, k] = encoder.encode_images(pixels[None])[0]
    assert torch.allclose(v, expected)
    assert not v[2].any()
    assert not v[3].any()


def test_neurons_without_exemplars_encode_nothing(probe):
    exemplars = SimpleNamespace(
        index=torch.full((2, 3), -1), status=torch.tensor([1, 2], dtype=torch.int8)
    )
    encoder = Toy()
    v = language.embed_exemplars(encoder, probe, exemplars, progress=False)
    assert v.shape == (2, 3, 4)
    assert not v.any()
    assert encoder.images == 0


def test_image_features_keep_the_order_asked_for(probe):
    encoder = Toy()
    features = language.image_features(encoder, probe, [6, 0, 3], batch_size=2, progress=False)
    expected = torch.cat(
        [encoder.encode_images(encoder.preprocess(probe.image(i))[None]) for i in (6, 0, 3)]
    )
    assert torch.allclose(features, expected)


def test_images_are_encoded_in_halves_where_memory_runs_out(probe):
    """Breaks if a split batch loses a row, or images are encoded twice."""

    class Small(Toy):
        def encode_images(self, pixels):
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("no memory left")
            return super().encode_images(pixels)

    small, order = Small(), [6, 0, 3, 1, 7, 2]
    found = language.image_features(small, probe, order, batch_size=5, progress=False)
    assert torch.equal(found, language.image_features(Toy(), probe, order, progress=False))
    assert small.images == 7, "with the fixed one"


def test_an_interrupted_encoding_of_images_resumes(probe, tmp_path):
    """Breaks if the features computed before a kill are lost."""

    class Stopped(Toy):
        def encode_images(self, pixels):
            if self.images >= 5:
                raise KeyboardInterrupt
            return super().encode_images(pixels)

    order, options = torch.arange(8), {"batch_size": 2, "progress": False}
    options["store"] = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        language.image_features(Stopped(), probe, order, **options)
    encoder = Toy()
    found = language.image_features(encoder, probe, order, **options)
    assert encoder.images == 5, "the second half and a fixed one"
    assert torch.equal(found, language.image_features(Toy(), probe, range(8), progress=False))


def test_features_kept_in_the_store_are_not_computed_again(probe, tmp_path):
    """Breaks if the store is not used, or its key lacks the images."""
    exemplars = SimpleNamespace(
        index=torch.tensor([[0, 3], [3, 5]]), status=torch.tensor([0, 0], dtype=torch.int8)
    )
    encoder, options = Toy(), {"progress": False, "store": Store(tmp_path / "store")}
    first = language.embed_exemplars(encoder, probe, exemplars, **options)
    again = language.embed_exemplars(encoder, probe, exemplars, **options)
    assert encoder.images == 3 + 2, "and the fixed one each time"
    assert torch.equal(first, again)
    language.embed_exemplars(encoder, images.subset(probe, range(7)), exemplars, **options)
    assert encoder.images == 6 + 3
