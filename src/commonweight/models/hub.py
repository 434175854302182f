"""Can an id be read from the Hugging Face Hub? Asked once, before libraries that try again for half a minute."""

from __future__ import annotations

import queue
import threading

from commonweight.models.identity import first_line


def out_of_reach(where: str, revision: str | None = None) -> str | None:
    """Say why an id cannot be read: it is not in the local cache, and the Hub cannot be asked."""
    # One request without repetition, which waits as long as ``HF_HUB_ETAG_TIMEOUT`` says (10 seconds unless it is set).
    # Any answer will do: what the Hub says of the id is left to those who load it.
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(where, "config.json", revision=revision or "main"), str):
            return None
        url = hf_hub_url(where, "config.json", revision=revision)
    except HFValidationError:
        return None
    if constants.HF_HUB_OFFLINE:
        return "it is not in the local cache, and HF_HUB_OFFLINE forbids asking the Hub"
    problem = _ask(url, constants.HF_HUB_ETAG_TIMEOUT)
    return None if problem is None else f"it is not in the local cache, and {constants.ENDPOINT} {problem}"


def _ask(url: str, seconds: float) -> str | None:
    from huggingface_hub import get_session

    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            get_session().head(url, timeout=seconds)
        except Exception as error:  # of whichever library carries the request
            found.put(f"cannot be reached ({type(error).__name__}: {first_line(error)})")
        else:
            found.put(None)

    # In a thread of its own, since no timeout of the request holds for the look-up of the host's name.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return f"did not answer within {seconds:g} seconds"
