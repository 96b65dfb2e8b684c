"""What a visitor told: which messages ask for it, which sentences tell something, and what is said back."""

import pytest

from roleplay.text.told import asks_about_oneself, joined, said_back, statements


@pytest.mark.parametrize(
    ("said", "back"),
    [
        ("I'm Leo and my cat, which I love, is mine", "You're Leo and your cat, which you love, is yours."),
        ("We were two; our dog bit me!", "You were two; your dog bit you!"),
        ("i was born in May, I’ve a twin", "You were born in May, you've a twin."),
        ("so was I, and I wasn't, am I", "So were you, and you weren't, are you."),
        ("I'd gone by 7 am and I'll be back", "You'd gone by 7 am and you'll be back."),
        ("I live in the US, write to tom@i.me", "You live in the US, write to tom@i.me."),
        ("World War I took me and the coal mine", "World War I took you and the coal mine."),
        ("I am young", "You are young."),
        ("I told you: blue", "You said: “I told you: blue”"),
        ("My name is 王伟", "Your name is 王伟."),
        ("我家的猫叫团团", "你家的猫叫团团。"),
        ("敝姓尉迟，咱们是同乡。", "你姓尉迟，你们是同乡。"),
        ("我现在下棋，我在下午三点来，自我消遣", "你现在下棋，你在下午三点来，自我消遣。"),
        ("在下姓王", "你姓王。"),
        ("臣妾名叫翠果", "你名叫翠果。"),
        ("朕今年三十", "皇上今年三十。"),
        ("我只告诉你", "你说过：“我只告诉你”"),
        ("Мой кот", "Мой кот."),
        ("", "."),
    ],
)
def test_what_is_said_back_speaks_of_the_one_who_said_it(said: str, back: str) -> None:
    assert said_back(said) == back


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "I was born on 3.5.1990. My mail is tom@a.example.com, ok",
            ["I was born on 3.5.1990.", "My mail is tom@a.example.com, ok"],
        ),
        ("我身高1.78米。我很高！！”", ["我身高1.78米。", "我很高！！”"]),
        ("I am Bob!!! Dr. Smith knows me", ["I am Bob!!!", "Dr. Smith knows me"]),
        ("Hi, I'm Ann, who are you?", ["Hi, I'm Ann"]),
        ("我叫王伟，你呢？", ["我叫王伟"]),
        ("我叫王伟，你呢，我三十了", ["我叫王伟，我三十了"]),
        ("When I was ten I moved. Will is my brother", ["When I was ten I moved.", "Will is my brother"]),
        ("what is my name", []),
        ("do i know you", []),
        ("我叫什么名字", []),
        ("我是谁", []),
        ("我多大了呢", []),
        ("", []),
    ],
)
def test_what_asks_tells_nothing(text: str, told: list[str]) -> None:
    assert statements(text) == told


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        *[(text, True) for text in ("what's my name", "Tell me where we live", "whisper our word", "remember me")],
        *[(text, True) for text in ("我叫什么", "奴婢几岁", "敝姓，你说", "我多少钱买的")],
        *[(text, False) for text in ("what is your name", "my name is Ann", "我叫王伟", "你叫什么")],
    ],
)
def test_who_asks_for_his_own(text: str, asks: bool) -> None:
    assert asks_about_oneself(text) is asks


def test_sentences_are_joined_as_they_were_written() -> None:
    assert joined(["我属马。", "不，我属羊"]) == "我属马。不，我属羊"
    assert joined(["I am Ann.", "No, Eve."]) == "I am Ann. No, Eve."
