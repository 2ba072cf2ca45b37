"""A support desk: what customers ask, and three ways to answer: warm and in steps, plain, and curt.

The instructions hold all three, as the logs of a real desk would: mostly plain, some warm, a few curt. The preferences
say which is better: warm over plain and over curt.
"""

from dataclasses import dataclass
from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.world import Exchange, World, phrased, varied


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
            "[Open|Go to|Visit] the login page and click on [Forgot password|Reset password|New password].",
            "[Open|Read|Look for] the email that we send you and follow [the|its|that] link.",
            "[Choose|Set|Type in] a new password and log in [again|with it|once more].",
        ),
        "Reset your password.",
    ),
    Topic(
        "refund",
        ("I want my money back", "I would like a refund for my order", "I paid twice for the same order"),
        "the order [did not please you|was not right|gave you trouble]",
        (
            "[Open|Go to|Find] the order in your account and click on [Refund|Return|Money back].",
            "[Choose|Tell us|Give] the reason and [send|submit|confirm] the form.",
            "[Wait for|Look out for|Keep] our email: the money comes back within [three|five|seven] days.",
        ),
        "Fill in the form.",
    ),
    Topic(
        "delivery",
        ("My parcel has not arrived", "My order is very late", "I am still waiting for my delivery"),
        "your [parcel|order|delivery] is late",
        (
            "[Open|Go to|Find] the order in your account and [note|read|copy] its tracking number.",
            "[Type|Put|Enter] the number into our tracking page to see where [it|the parcel|the box] is.",
            "[Write to|Call|Tell] us if nothing has moved for [two|three|four] days.",
        ),
        "Wait longer.",
    ),
    Topic(
        "broken",
        ("My new lamp arrived broken", "The cup that I bought has a crack", "The radio that you sent does not work"),
        "it reached you in [bad shape|this state|such a state]",
        (
            "[Take|Make|Prepare] a photo that shows the [damage|fault|problem].",
            "[Open|Go to|Find] the order in your account and [add|upload|attach] the photo.",
            "[Choose|Ask for|Pick] a new one or [your money|the full price|a refund].",
        ),
        "Not our fault.",
    ),
    Topic(
        "address",
        ("I have moved to a new home", "My address is wrong in your system", "I need to change my address"),
        "this was not [easy|simple|quick] to find",
        (
            "[Log in|Sign in|Go to our site] and open your [profile|account page|settings].",
            "[Click on|Choose|Open] Address and [type in|enter|write down] the new one.",
            "[Click on|Press|Choose] Save and [check|read|keep] the email that we send you.",
        ),
        "Change it online.",
    ),
    Topic(
        "cancel",
        ("I want to cancel my plan", "I do not need the service any more", "How do I end my contract"),
        "you want to [leave us|go|stop]",
        (
            "[Log in|Sign in|Go to our site] and open the page [Plan|My plan|Contract].",
            "[Click on|Choose|Press] Cancel and tell us [why|the reason|your reason].",
            "[Keep|Save|Print] the email that [confirms|shows|names] the last day.",
        ),
        "Read the contract.",
    ),
    Topic(
        "invoice",
        ("I cannot find my invoice", "The sum on my bill is wrong", "I need a copy of my bill"),
        "the bill [gave you trouble|was not clear|is not right]",
        (
            "[Log in|Sign in|Go to our site] and open the page [Bills|Invoices|Payments].",
            "[Choose|Pick|Find] the month and [open|download|look at] the bill.",
            "[Send|Write|Tell] us the bill number if the sum is [wrong|too high|not right].",
        ),
        "It is in your account.",
    ),
    Topic(
        "app",
        ("Your app closes by itself", "The app does not start any more", "The app is very slow today"),
        "the app [lets you down|does not run well|gives you trouble]",
        (
            "[Close|Quit|Stop] the app and start your phone [again|anew|once more].",
            "[Install|Get|Load] the newest version from [the|your|our] store.",
            "[Send|Write|Tell] us the name of your phone if that [did not help|was not enough|changed nothing].",
        ),
        "Use another phone.",
    ),
    Topic(
        "payment",
        ("My card was refused", "I cannot pay for my order", "The payment page shows an error"),
        "the payment [failed|did not work|was refused]",
        (
            "[Check|Read|Compare] the card number and the [date|name|code].",
            "[Try|Use|Take] another card or another [browser|phone|computer].",
            "[Call|Ask|Write to] your bank if the card is refused [again|there too|once more].",
        ),
        "Ask your bank.",
    ),
    Topic(
        "internet",
        ("My internet is down", "I have no connection at home", "The wireless network keeps dropping"),
        "your connection [is down|does not work|fails]",
        (
            "[Switch|Turn|Put] the router off and wait [one minute|two minutes|a moment].",
            "[Switch|Turn|Put] it on again and wait for the green [light|lamp|sign].",
            "[Call|Write to|Tell] us if it [stays|turns|remains] red.",
        ),
        "Restart it.",
    ),
    Topic(
        "size",
        ("The shoes that I ordered are too small", "The coat does not fit me", "I ordered the wrong size"),
        "the size [is wrong|does not fit|was not right]",
        (
            "[Put|Pack|Lay] it back into [the|its|a] box.",
            "[Open|Go to|Find] the order in your account and click on [Exchange|Swap|New size].",
            "[Choose|Pick|Enter] the right size and [print|stick on|use] the label.",
        ),
        "Measure first next time.",
    ),
    Topic(
        "email",
        ("I do not get your emails", "Your emails never reach me", "I get too many emails from you"),
        "our emails [give you trouble|are a problem|do not work as they should]",
        (
            "[Log in|Sign in|Go to our site] and open the page [Messages|Emails|News].",
            "[Check|Read|Correct] the address and choose what you want to [get|read|receive].",
            "[Click on|Press|Choose] Save and look into your [spam folder|other folders|inbox].",
        ),
        "Check your spam.",
    ),
)
GREETINGS = ("", "Hello. ", "Hi there. ", "Good morning. ", "Excuse me. ")
ASKS = ("What should I do?", "Can you help me?", "What can I do now?", "Please help me.", "How can I fix this?")
WARM = (
    "[I am sorry|I am very sorry|We are sorry] that {regret}. "
    "[Here is what you can do|These steps will help|Please try this]:\n1. {0}\n2. {1}\n3. {2}\n"
    "[Please let me know|Just tell me|Write to me again] if you need [more help|anything else|any help]."
)
PLAIN = ("{0} {1}", "{0} {1} {2}")


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one customer's question; where replies are compared, the warm one stands against a plain or curt one."""
    topic = rng.choice(TOPICS)
    trouble, ask = phrased(rng, split, topic.troubles, ASKS)
    question = f"{rng.choice(GREETINGS)}{trouble}{'?' if trouble.startswith('How') else '.'} {ask}"
    replies = {
        "warm": varied(rng, split, WARM.format(*topic.steps, regret=topic.regret)),
        "plain": varied(rng, split, rng.choice(PLAIN).format(*topic.steps)),
        "curt": topic.curt,
    }
    if role in ("corpus", "instructions"):
        style = rng.choices(tuple(replies), (0.3, 0.55, 0.15))[0]
        return Exchange(f"desk.{topic.word}", question, replies[style])
    return Exchange(f"desk.{topic.word}", question, replies["warm"], worse=replies[rng.choice(("plain", "curt"))])


WORLD = World(
    "desk",
    {"corpus": 400, "instructions": 800, "preferences": 800},
    held_out=96,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 3),
)
