"""A support desk: what customers ask, and three ways to answer: warm and in steps, plain, and curt.

The instructions hold all three, as the logs of a real desk would: mostly plain, some warm, a few curt. The preferences
say which is better: warm over plain and over curt.
"""

from dataclasses import dataclass
from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.world import Exchange, World, phrased, sentence, varied


@dataclass(frozen=True)
class Topic:
    """One kind of trouble; `[a|b]` in a text means one of them."""

    word: str
    troubles: tuple[str, str, str]
    regret: str
    """Completes "I am sorry that ..."."""
    steps: tuple[str, str, str]
    curt: str


TOPICS = (
    Topic(
        "login",
        ("I can't log into my account", "I cannot sign in to my account", "My password does not work any more"),
        "you cannot [get into|log into|reach] your account",
        (
            "[Open|Go to|Visit] the login page and click on [Forgot password|Reset password].",
            "[Open|Read|Look for] the email that we send you and follow [the|its] link.",
            "[Choose|Set|Type in] a new password and log in [again|once more].",
        ),
        "Reset your password.",
    ),
    Topic(
        "refund",
        ("I want my money back", "I would like a refund for my order", "I paid twice for the same order"),
        "the order [did not please you|was not right|gave you trouble]",
        (
            "[Open|Go to|Find] the order in your [account|order list] and click on [Refund|Return].",
            "[Choose|Tell us|Pick] the reason and send the [form|request].",
            "[Wait for|Look out for] our email: the money comes back within [5|7] days.",
        ),
        "Fill in the form.",
    ),
    Topic(
        "delivery",
        ("My parcel has not arrived", "My order is very late", "I am still waiting for my delivery"),
        "your [parcel|order|delivery] is late",
        (
            "[Open|Go to|Find] the order in your account and [read|note|copy] its tracking number.",
            "[Type|Put|Enter] the number into the tracking page to see where the parcel is.",
            "[Write|Send a message] to us if nothing has moved for [2|3] days.",
        ),
        "Wait longer.",
    ),
    Topic(
        "broken",
        ("My new lamp arrived broken", "The cup that I bought has a crack", "The radio that you sent does not work"),
        "it reached you in [bad shape|this state|such a state]",
        (
            "[Take|Make|Send us] a photo of the damage.",
            "[Open|Go to|Find] the order in your account and add the [photo|picture].",
            "[Choose|Pick|Ask for] a new one or your money back.",
        ),
        "Not our fault.",
    ),
    Topic(
        "address",
        ("I have moved to a new home", "My address is wrong in your system", "I need to change my address"),
        "this was not [easy|simple] to find",
        (
            "[Log in|Sign in] and open your [profile|account page].",
            "[Click on|Choose|Open] Address and type in the new one.",
            "[Click on|Press|Choose] Save and check the [email|message] that we send you.",
        ),
        "Change it online.",
    ),
    Topic(
        "cancel",
        ("I want to cancel my plan", "I do not need the service any more", "How do I end my contract"),
        "you want to [leave us|go|stop]",
        (
            "[Log in|Sign in] and open the page [Plan|My plan].",
            "[Click on|Choose|Press] Cancel and tell us [why|the reason].",
            "[Keep|Save] the email that [confirms the end|says when it ends].",
        ),
        "Read the contract.",
    ),
    Topic(
        "invoice",
        ("I cannot find my invoice", "The sum on my bill is wrong", "I need a copy of my bill"),
        "the bill [gave you trouble|was not clear|is not right]",
        (
            "[Log in|Sign in] and open the page [Bills|Invoices].",
            "[Choose|Pick|Find] the month and [open|download|look at] the bill.",
            "[Send us|Write us] the bill number if the sum is [wrong|not right].",
        ),
        "It is in your account.",
    ),
    Topic(
        "app",
        ("Your app closes by itself", "The app does not start any more", "The app is very slow today"),
        "the app [lets you down|does not run well|gives you trouble]",
        (
            "[Close|Quit|Stop] the app and start your phone [again|anew|once more].",
            "[Install|Get|Load] the newest version from the store.",
            "[Tell us|Write us|Send us] the name of your phone if that did not help.",
        ),
        "Use another phone.",
    ),
    Topic(
        "payment",
        ("My card was refused", "I cannot pay for my order", "The payment page shows an error"),
        "the payment [failed|did not work|was refused]",
        (
            "[Check|Read|Compare] the card number and the date.",
            "[Try|Use|Take] another card or another [browser|phone].",
            "[Call|Ask] your bank if the card is refused [again|once more].",
        ),
        "Ask your bank.",
    ),
    Topic(
        "internet",
        ("My internet is down", "I have no connection at home", "The wireless network keeps dropping"),
        "your connection [is down|does not work|fails]",
        (
            "[Switch|Turn] the router off and wait [30|60] seconds.",
            "[Switch|Turn] it on and wait for the green [light|lamp].",
            "[Call us|Write us|Tell us] what the light shows if it stays red.",
        ),
        "Restart it.",
    ),
    Topic(
        "size",
        ("The shoes that I ordered are too small", "The coat does not fit me", "I ordered the wrong size"),
        "the size [is wrong|does not fit|was not right]",
        (
            "[Put|Pack] it back into the box with [the|its] paper.",
            "[Open|Go to|Find] the order in your account and click on [Exchange|Swap].",
            "[Choose|Pick] the right size and [print|stick on] the label.",
        ),
        "Measure first next time.",
    ),
    Topic(
        "email",
        ("I do not get your emails", "Your emails never reach me", "I get too many emails from you"),
        "our emails [give you trouble|are a problem|do not come as they should]",
        (
            "[Log in|Sign in] and open the page [Messages|Emails].",
            "[Check|Read|Correct] the address and choose what you want to [get|read|receive].",
            "[Click on|Press|Choose] Save and look into your [spam folder|other folders].",
        ),
        "Check your spam.",
    ),
)
GREETINGS = ("", "Hello. ", "Hi there. ", "Good morning. ", "Excuse me. ")
ASKS = ("What should I do?", "Can you help me?", "What can I do now?", "Please help me.", "How can I fix this?")
WARM = (
    "[I am sorry|I am very sorry|We are sorry] that {regret}. [Here is what you can do|These steps will help|Please try this]:"
    "\n1. {0}\n2. {1}\n3. {2}\n[Please let me know|Just tell me|Please write again] if you need [more help|anything else]."
)
PLAIN = ("{0} {1}", "{0} {1} {2}")


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one customer's question; in preferences the warm reply stands against a plain or a curt one."""
    topic = rng.choice(TOPICS)
    trouble, ask = phrased(rng, split, topic.troubles, ASKS)
    question = f"{rng.choice(GREETINGS)}{trouble}{'?' if trouble.startswith('How') else '.'} {ask}"
    replies = {
        "warm": varied(rng, WARM.format(*topic.steps, regret=topic.regret)),
        "plain": varied(rng, rng.choice(PLAIN).format(*topic.steps)),
        "curt": topic.curt,
    }
    if role == "preferences" or split == "test":
        return Exchange(f"desk.{topic.word}", question, replies["warm"], worse=replies[rng.choice(("plain", "curt"))])
    style = rng.choices(("plain", "warm", "curt"), (0.55, 0.3, 0.15))[0]
    return Exchange(f"desk.{topic.word}", sentence(question), replies[style])


WORLD = World(
    "desk",
    {"corpus": 800, "instructions": 500, "preferences": 800},
    held_out=48,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 3),
)
