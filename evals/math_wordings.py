"""How problems of GSM8K and MGSM are asked, and what announces their results, in each language."""

from __future__ import annotations

from dataclasses import dataclass

from evals.metrics.answers import GSM8K_PATTERN


@dataclass(frozen=True)
class Wording:
    """How a set of problems is asked: the words before a question and its answer, and those before the result.

    `question` keeps the space that follows it, where there is one. `phrase` and `strict` are regular expressions: what
    announces a result, and what lm-evaluation-harness takes for one.
    """

    question: str
    answer: str
    phrase: str
    strict: str

    @property
    def stop(self) -> tuple[str, ...]:
        """Return what ends an answer, as in the harness: the start of the next question, and ends of texts."""
        return (self.question.strip(), "</s>", "<|im_end|>")

    def prompt(self, problem: str) -> str:
        """Return a question that waits for its answer."""
        return f"{self.question}{problem}\n{self.answer}"

    def is_label_of(self, question: str, answer: str) -> bool:
        """Tell whether a worked example begins with these words, as a prompt will."""
        return question.startswith(self.question.strip()) and answer.startswith(self.answer)


_ANSWER = "The (?:final |correct )?answer is"
_N = r"(\-?[0-9\.\,]+)"
GSM8K_WORDING = Wording("Question: ", "Answer:", f"####|{_ANSWER}", GSM8K_PATTERN)
# The words of MGSM's own worked examples; the harness looks for English in Bengali.
MGSM_WORDINGS: dict[str, Wording] = {
    "bn": Wording("প্রশ্ন: ", "ধাপে ধাপে উত্তর:", "উত্তর হল", f"The answer is {_N}"),
    "de": Wording("Frage: ", "Schritt-für-Schritt-Antwort:", "Die Antwort (?:lautet|ist)", f"Die Antwort lautet {_N}"),
    "en": Wording("Question: ", "Step-by-Step Answer:", _ANSWER, f"The answer is {_N}"),
    "es": Wording("Pregunta: ", "Respuesta paso a paso:", "La respuesta es", f"La respuesta es {_N}"),
    "fr": Wording("Question : ", "Réponse étape par étape :", "La réponse est", f"La réponse est {_N}"),
    "ja": Wording("問題：", "ステップごとの答え：", "答えは", f"答えは{_N}です。"),
    "ru": Wording("Задача: ", "Пошаговое решение:", "Ответ —", f"Ответ — {_N}"),
    "sw": Wording("Swali: ", "Jibu la Hatua kwa Hatua:", "Jibu ni", f"Jibu ni {_N}"),
    # Not the label before an answer, which ends in the same word.
    "te": Wording("ప్రశ్న: ", "దశలవారీగా సమాధానం:", "(?<!దశలవారీగా )సమాధానం", f"సమాధానం {_N}"),
    "th": Wording("โจทย์: ", "คำตอบทีละขั้นตอน:", "คำตอบคือ", f"คำตอบคือ {_N}"),
    "zh": Wording("问题：", "逐步解答：", "答案是", f"答案是 {_N}。"),
}
