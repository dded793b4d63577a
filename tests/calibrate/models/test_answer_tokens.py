"""Numbers behind a blank, as the tokenizers of Llama-2 and Llama-3 write them: what of it is prompt, what is answer."""

import string
from dataclasses import replace

import pytest
import torch
from answering import answer_all
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from calibrate.datasets import Sample, open_dataset
from calibrate.datasets.pointqa import NUMBERS
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.answer_tokens import AnswerTokens
from calibrate.models.batches import make_answered_batch, make_batch
from calibrate.models.prompts import make_prompt

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
CHARACTERS = (*string.ascii_letters, *string.digits, *":.,?!'()-\n")


def merged(mark: str, words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of characters and some words behind a blank, with the merges that lead to them; no number's."""
    vocabulary, merges = [*SPECIAL, mark, *CHARACTERS], []
    for word in words:
        for end in range(1, len(word) + 1):
            if (part := mark + word[:end]) not in vocabulary:
                vocabulary.append(part)
                merges.append((mark + word[: end - 1], word[end - 1]))
    return {token: i for i, token in enumerate(vocabulary)}, merges


def like_llama_2() -> Tokenizer:
    """SentencePiece's: a blank in front of the text and for every blank, digits by themselves."""
    vocabulary, merges = merged("▁", ("Yes", "No", "red"))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made


def like_llama_3() -> Tokenizer:
    """Bytes; numbers are cut off before anything is merged."""
    vocabulary, merges = merged("Ġ", ("Yes", "No", "red"))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    numbers_apart = Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(numbers_apart, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture(scope="module", params=[like_llama_2, like_llama_3])
def numbers_apart(request, llava):
    """The tiny model with such a tokenizer."""
    made = request.param()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL, strict=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names, additional_special_tokens=["<image>"])
    assert len(tokenizer) <= llava.model.config.text_config.vocab_size
    old = llava.processor
    processor = LlavaProcessor(
        image_processor=old.image_processor,
        tokenizer=tokenizer,
        patch_size=old.patch_size,
        vision_feature_select_strategy=old.vision_feature_select_strategy,
        num_additional_image_tokens=old.num_additional_image_tokens,
        chat_template=old.chat_template,
    )
    return replace(llava, processor=processor)


def sample_of(answer, options) -> Sample:
    image = next(iter(open_dataset("synthetic", samples=1, seed=0))).image
    return Sample("one", image, "How many?", answer, "object", options)


def test_a_blank_in_front_of_every_number_is_part_of_the_prompt(numbers_apart):
    tokenizer, count, yes = numbers_apart.processor.tokenizer, sample_of("3", NUMBERS), sample_of("Yes", ("Yes", "No"))
    counting, asking = (make_prompt(numbers_apart, one).tokens.tolist() for one in (count, yes))
    assert counting[:-1] == asking
    assert tokenizer.decode(counting[-1:]).strip() == ""
    answers = numbers_apart.answers
    assert [answers.word(answers.first(count, number)) for number in NUMBERS] == list(NUMBERS)
    assert answers.word(answers.first(yes, "Yes")) == "Yes"


def test_the_lead_is_what_all_options_share(numbers_apart):
    answers = numbers_apart.answers
    assert len(answers.lead(sample_of("3", NUMBERS))) == 1
    assert answers.lead(sample_of("3", ("3", "No"))) == []
    assert answers.lead(sample_of("No", ("3", "No"))) == []
    # Without a shared lead the blank is all that a first token says, so that the next one counts too.
    mixed = ("3", "4", "No")
    assert [answers.word(token) for token in answers.forced(sample_of("3", mixed))] == ["", "3"]
    assert answers.forced(sample_of("No", mixed)) == []


def test_the_blank_is_the_reply_s_where_a_head_tells_prompt_from_reply(numbers_apart):
    """A server computes the digit behind the blank that the model wrote."""
    count, yes = sample_of("3", NUMBERS), sample_of("Yes", ("Yes", "No"))
    _, expected = make_answered_batch(numbers_apart, [count, yes])
    lengths = [len(make_prompt(numbers_apart, one).tokens) for one in (count, yes)]
    assert expected.prompt_lengths == [lengths[0] - 1, lengths[1]] == [lengths[1]] * 2
    assert [numbers_apart.answers.replied(one) for one in (count, yes)] == [1, 0]


def test_tokenizers_of_whole_words_have_no_lead(llava):
    assert AnswerTokens(llava.processor.tokenizer).lead(sample_of("3", NUMBERS)) == []


def test_numbers_are_judged_by_what_comes_behind_the_blank(numbers_apart):
    """Against the model asked without any of this: its chat prompt, the blank's token, the likeliest next one."""
    count, yes = sample_of("3", NUMBERS), sample_of("Yes", ("Yes", "No"))
    batch = make_batch(numbers_apart, [count, yes])
    logits = next_token_logits(numbers_apart, batch)
    tokenizer, model = numbers_apart.processor.tokenizer, numbers_apart.model
    content = [{"type": "image"}, {"type": "text", "text": count.question}]
    text = numbers_apart.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = numbers_apart.processor(images=[count.image], text=[text], return_tensors="pt", add_special_tokens=False)
    blank = torch.tensor([[tokenizer.convert_tokens_to_ids("▁" if "▁" in tokenizer.get_vocab() else "Ġ")]])
    with torch.inference_mode():
        for row, ids in ((0, torch.cat([inputs["input_ids"], blank], 1)), (1, inputs["input_ids"])):
            expected = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -1]
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-5)
    said = tokenizer.decode([int(logits[0].argmax())]).strip()
    assert answer_all(numbers_apart, [count]).right.tolist() == [said == "3"]
    digits = torch.tensor([tokenizer.convert_tokens_to_ids(number) for number in NUMBERS])
    assert AnswerMatcher(numbers_apart).matches(digits, [count] * len(NUMBERS)).tolist() == [n == "3" for n in NUMBERS]
