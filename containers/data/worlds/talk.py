"""Everyday questions: greetings, jokes, things explained in simple words. Lessons only: nothing here can be scored."""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.world import Exchange, World, sentence, varied

EXPLAINED = {
    "quantum computing": "A normal computer works with bits that are 0 or 1. A quantum computer works with qubits, "
    "which can be a mix of both at once. So it can solve some hard problems "
    "much faster, [but not all|but not all of them].",
    "gravity": "Gravity is the pull between [things|objects] that have mass. "
    "The earth pulls you down, and so you do not float away.",
    "the rain": "The sun warms the sea, and water rises as [vapour|steam]. "
    "High up it cools, makes clouds, and falls down as rain.",
    "a computer": "A computer is a machine that [follows|works through] a list of simple steps very fast. "
    "The list is called a program.",
    "the internet": "The internet joins computers all over the world, so that they can "
    "send [messages|data] to each other.",
    "a battery": "A battery stores energy. When you join its two ends, the energy [flows|comes] out as a current.",
    "money": "Money is what people agree to trade with. You [work|sell something] for it and buy other things with it.",
    "a language model": "A language model has read a lot of text. It [guesses|predicts] the next word again and again, "
    "and so it writes an answer.",
}
CLAUSES = {
    "either party may end this contract with 30 days notice": "Each side may stop the contract, "
    "but it must [say so|tell the other side] 30 days before.",
    "the buyer bears all costs of delivery": "The person who buys also pays for [sending|shipping] the goods.",
    "the tenant shall keep the flat in good order": "Whoever rents the flat must [look after|take care of] it.",
    "this contract is governed by the law of the state": "If there is a quarrel, a judge [uses|follows] the law there.",
    "late payment bears interest of 5 percent": "If you pay too late, you [owe|pay] 5 percent more.",
    "the supplier shall not be liable for indirect or consequential damages": "If something goes wrong, "
    "the seller does not have to pay for losses that [follow only later|are only a later result].",
}
JOKES = (
    "Why did the clock get more money at work? It always worked around the clock.",
    "My boss told me to have a good day, so I went home.",
    "Why do eggs never go to work? They crack under pressure.",
    "I like my work so much that I could look at it for hours.",
    "Why was the computer late for work? It had a hard drive.",
    "I asked for a short meeting, and they gave me a chair with short legs.",
)
GREETED = {
    "Hello!": "Hello! How can I help you?",
    "Hi, who are you?": "I am a small assistant. How can I help you?",
    "Good morning.": "Good morning! What can I do for you?",
    "Thank you.": "You are welcome!",
    "Thanks for your help.": "You are very welcome!",
    "Goodbye.": "Goodbye, and have a nice day!",
    "How are you?": "I am well, thank you. How can I help you?",
}
EXPLAIN = (
    "[Explain|Please explain|Describe] {x} in simple words.",
    "What is {x}? [Use|Please use] simple words.",
    "[Explain|Describe] {x} to a child.",
    "How would you explain {x} in [simple|easy] words?",
    "What is {x}?",
)
CLAUSE = (
    "[Explain|Please explain|Describe] this contract clause: {X}.",
    '[Explain|Please explain|Describe] this contract clause in simple words: "{x}".',
    'What does this contract clause mean: "{x}"?',
    "What does this clause of a contract say in simple words: {x}?",
    'I do not understand this clause: "{x}". What does it mean?',
)
JOKE = (
    "Tell me a joke about work.",
    "[Do you know|Can you tell me] a joke about [work|the office|my job]?",
    "[Please tell|Tell] me [something funny|a joke] about [work|the office].",
    "Make me laugh with a joke about [work|my job].",
)


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one everyday question with its reply; `role` makes no difference."""
    kind = rng.choice(("explain", "explain", "clause", "clause", "joke", "greet"))
    if kind == "greet":
        question = rng.choice(tuple(GREETED))
        return Exchange("talk.greet", question, GREETED[question])
    if kind == "joke":
        return Exchange("talk.joke", varied(rng, split, rng.choice(JOKE)), rng.choice(JOKES))
    known, asks = (EXPLAINED, EXPLAIN) if kind == "explain" else (CLAUSES, CLAUSE)
    topic = rng.choice(tuple(known))
    asked = varied(rng, split, rng.choice(asks).format(x=topic, X=sentence(topic)))
    return Exchange(f"talk.{kind}", asked, varied(rng, split, known[topic]))


WORLD = World(
    "talk",
    {"corpus": 150, "instructions": 240},
    held_out=0,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 3),
)
