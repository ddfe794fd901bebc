"""One request for a generation, from its route to its bill.

The ways: the large model at once; the lean one without a question; or the lean one first, its answer held back until
its log-probs are judged (those of the whole, or of as many tokens as the policy reads), then either released or thrown
away for the large model's. Nothing of an answer reaches the client before it is decided whose it is, and nothing is
changed after. What nobody judges is passed on as it comes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pydantic_core import from_json, to_json

from leanmodel_api.router import Backend

from .cost import BYTES_PER_TOKEN, Usage
from .errors import EXTERNAL, ApiError, engine_broken, engine_down
from .fallback import may_stand_in
from .http import EVENTS, Answer
from .logprobs import Reading, narrow
from .passing import refuse
from .request import Request
from .rescue import ask_large, ask_outside
from .route import Route
from .shadow import ask_shadow
from .sse import DONE, event
from .upstream import refusal
from .watcher import Shadow
from .wire import Reply


class Generation(Request):
    """One request for a generation."""

    accepted: Reading | None = None
    """What the lean model answered, where that is what the client got."""

    # ---------------------------------------------------------------- the ways

    async def run(self, answer: Answer) -> None:
        """Answer the request, then count it for the monitors.

        Raises:
            ApiError: nothing was sent yet, and this is what to say.
        """
        await self._answer(answer)
        if answer.status == 200:
            self._watch()

    async def _answer(self, answer: Answer) -> None:
        settings, way = self.state.settings, self.route.way
        if way != "large" and not self.route.alone and not self.shared.breakers.lean.allows():
            self.shared.meters.count("leanmodel_lean_skipped")
            self.route = Route("large", "lean-failing", pressure=self.route.pressure)
            way = "large"
        if way != "large" and settings.lean is not None:
            if self.ask.stream:
                done = await self._lean_stream(answer, settings.lean, judge=way == "try")
            else:
                done = await self._lean_whole(answer, settings.lean, judge=way == "try")
            if done:
                return
            if self.route.alone:
                raise engine_down(
                    settings.lean.revision, "it failed, and there is no money for the large model"
                )
        self.account.name = "escalated" if self.account.escalated_for else "large"
        error = await ask_large(self, answer)
        if error is not None and not await self._fall_back(answer, error):
            raise error

    async def _fall_back(self, answer: Answer, error: ApiError) -> bool:
        """Let somebody else answer what the large model could not; return whether anybody did.

        Raises:
            ApiError: nobody did, and this is what the provider had to say about the request.
        """
        if error.status < 500:
            return False
        before = self.route, self.account.name
        self.route = replace(self.route, reason="large-failing", promised=False)
        said = await ask_outside(self, answer, before[0])
        if said is None or (may_stand_in(self.state, self.ask, before[0]) and await self._stand_in(answer)):
            return True
        self.route, self.account.name = before
        if said.status < 500:
            raise said
        return False

    async def _stand_in(self, answer: Answer) -> bool:
        """Let the lean model answer in the large one's place, unjudged; return whether it did."""
        lean = self.state.settings.lean
        if (
            lean is None
            or self.account.escalated_for == "lean_failed"
            or not self.shared.breakers.lean.allows()
        ):
            return False
        before, self.account.escalated_for = (self.route, self.account.escalated_for), ""
        self.route = replace(self.route, way="lean")
        stand_in = self._lean_stream if self.ask.stream else self._lean_whole
        if await stand_in(answer, lean, judge=False):
            return True
        self.route, self.account.escalated_for = before
        return False

    async def _lean_whole(self, answer: Answer, lean: Backend, judge: bool) -> bool:
        """Ask the lean model; send its answer and return True, or return False for the large one to answer."""
        try:
            reply = await self.ask_backend(lean, self._lean_body(lean, judge))
        except ApiError:
            return self._lean_failed()
        if not reply.ok or reply.content is None:
            return await self._lean_refused(answer, lean, reply)
        self.shared.breakers.lean.saw(ok=True)
        self.account.lean_worked(lean, Usage.of(reply.content.get("usage")), reply.seconds)
        reading = Reading(self.ask.endpoint)
        try:
            reading.take(reply.content)
            narrow(self.ask, reply.content)
        except ValueError:
            return self._lean_failed()
        if judge and not self._accepts(reading):
            return False
        self._keep(reading)
        await self.settle()
        await answer.whole(200, to_json(reply.content), self.headers(lean.revision, with_cost=True))
        return True

    async def _lean_stream(self, answer: Answer, lean: Backend, judge: bool) -> bool:
        """As :meth:`_lean_whole`, for a stream; where it is to be judged, its chunks are held back until it is.

        On a part of it: as soon as one token more than the policy reads is there, or the answer has ended.
        """
        held: list[dict[str, Any]] = []
        reading, usage = Reading(self.ask.endpoint), Usage()
        first = last = 0.0
        begun, complete, failed, thrown_away = time.perf_counter(), False, False, False
        broken = engine_broken(lean.revision, "its stream broke off")
        hold_back, undecided = self._hold_back(judge), judge
        try:
            async with self.open_backend(lean, self._lean_body(lean, judge)) as stream:
                if isinstance(stream, Reply):
                    return await self._lean_refused(answer, lean, stream)
                async for batch in stream.batches():
                    last = time.perf_counter()
                    for data in batch:
                        if data == DONE:
                            complete = True
                            break
                        chunk = from_json(data)
                        if not isinstance(chunk, dict) or "error" in chunk:
                            failed = True
                            break
                        first = first or last
                        reading.take(chunk)
                        narrow(self.ask, chunk)
                        if isinstance(chunk.get("usage"), dict):
                            usage = Usage.of(chunk["usage"])
                            if not chunk.get("choices"):
                                self.account.lean_worked(lean, usage, last - begun)
                            elif hold_back is not None:
                                del chunk["usage"]
                        held.append(chunk)
                        if undecided and hold_back is not None and len(reading.tokens) > hold_back:
                            undecided, thrown_away = False, not self._accepts(reading)
                            if thrown_away:
                                break
                    if held and not undecided and not thrown_away:
                        if not answer.begun:
                            await self._start(answer, lean, with_cost=False)
                        await self._release(answer, held)
                        held.clear()
                    if complete or failed or thrown_away:
                        break
        except ApiError as error:
            complete, broken = False, error
        except ValueError:
            complete = False
        if not complete and not thrown_away:
            return await self._broken_off(answer, broken)
        self.shared.breakers.lean.saw(ok=True)
        if self.account.lean is None:
            if thrown_away and not usage.total:  # an engine that tells the usage at the end alone
                usage = Usage(len((self.ask.text() or "").encode()) // BYTES_PER_TOKEN, len(reading.tokens))
            self.account.lean_worked(lean, usage, time.perf_counter() - begun)
        if thrown_away or (undecided and not self._accepts(reading)):
            return False
        self._keep(reading)
        await self.settle()
        if not answer.begun:
            await self._start(answer, lean, with_cost=True)
        await self._release(answer, held)
        self.account.per_token(first, last, usage)
        await answer.write(event(DONE))
        await answer.end()
        return True

    async def _start(self, answer: Answer, lean: Backend, with_cost: bool) -> None:
        self.account.name = "lean"
        await answer.start(200, EVENTS, self.headers(lean.revision, with_cost=with_cost))
        self.account.first_token()

    async def _release(self, answer: Answer, chunks: list[dict[str, Any]]) -> None:
        """Send chunks of the lean stream, as the client asked for them, in one piece."""
        out = []
        for chunk in chunks:
            if chunk.get("choices") or not isinstance(chunk.get("usage"), dict):
                out.append(event(to_json(chunk)))
            elif self.ask.usage_wanted:
                out.append(event(self.account.with_cost(chunk)))
        if out:
            await answer.write(b"".join(out), len(out))

    async def _broken_off(self, answer: Answer, error: ApiError) -> bool:
        """Leave a lean stream that broke off to the large model, or say so where some of it is out already."""
        if not answer.begun:
            return self._lean_failed()
        self.shared.breakers.lean.saw(ok=False)
        await answer.break_off(error)
        return True

    # ---------------------------------------------------------------- deciding

    def _accepts(self, reading: Reading) -> bool:
        """Judge the lean answer by the policy."""
        decider = self.state.by(self.route.pressure)
        if decider is None:
            return True
        confidence = 0.0
        if reading.complete:
            confidence = decider.confidence(
                reading.tokens, reading.top, reading.answer, reading.finish_reason,
                prompt=self.ask.text(), schema=self.ask.schema(),
            )  # fmt: skip
        self.account.confidence = confidence
        accepted = decider.accept(confidence, self.route.group) and confidence >= self.route.minimum
        self.shared.meters.observe(
            "leanmodel_confidence", confidence, decision="accepted" if accepted else "escalated"
        )
        if not accepted:
            self.account.escalated_for = "confidence"
        return accepted

    def _keep(self, reading: Reading) -> None:
        self.account.name, self.accepted = "lean", reading

    async def _lean_refused(self, answer: Answer, lean: Backend, reply: Reply) -> bool:
        """Leave to the large model what the lean one refuses; where nobody else may be asked, its word is the last."""
        if self.route.alone and 400 <= reply.status < 500:
            await refuse(self, answer, lean.revision, refusal(lean, reply), reply)
            return True
        return self._lean_failed(engine_fault=reply.status >= 500)

    def _lean_failed(self, engine_fault: bool = True) -> bool:
        """The large model shall answer; a refusal that is the request's own fault is not held against the engine."""
        self.shared.breakers.lean.saw(ok=not engine_fault)
        self.account.escalated_for = "lean_failed"
        return False

    def _watch(self) -> None:
        """Tell the monitors, once the answer is out, and keep a conversation where it went."""
        watcher, account, reading = self.shared.watcher, self.account, self.accepted
        if account.name in ("large", "escalated", EXTERNAL) and self.route.reason not in (
            "fixed",
            "override",
        ):
            watcher.pins.pin(self.conversation)
        # Turns of one conversation hang together: its first stands for it.
        if not self.route.watched or self.conversation.spoken:
            return
        score = self.route.score if self.route.score is not None else account.confidence
        shadow = None
        if reading is not None:
            shadow = Shadow(
                account.request_id,
                reading.answer,
                lambda: ask_shadow(self.shared, account, self.ask, self.route, self.size),
            )
        watcher.count(self.state, score, reading is not None, shadow, self.route.pressure)
