"""Words for independent streams of random numbers, on every numpy that the project allows."""

from mmoe_lib.seeds import seed_word, seeded_generator


def test_a_word_is_a_python_number_of_64_bits() -> None:
    """Numpy 1.26 refuses to shift its own uint64 by a Python number; torch takes half of the word."""
    words = [seed_word(seed, "a test") for seed in range(20)]
    assert all(type(word) is int for word in words)
    assert 2**63 < max(words) < 2**64
    assert [seeded_generator(seed, "a test").initial_seed() for seed in range(20)] == [w >> 1 for w in words]
