"""The console in a real browser, over the TLS that it is served with."""

from __future__ import annotations

import wharfinger.console.app as console
from tests.consolefront import TOKEN, browsing, served


def test_every_page_is_clicked_through_without_a_fault() -> None:
    """From the address with the token through every page and filter: no console error, no failed request, all shown."""
    with served() as address, browsing() as (page, wrong):
        page.goto(f"{address}/overview?token={TOKEN}")
        assert "token" not in page.url
        for name in console.PAGES:
            page.click(f"nav a[href='/{name}']")
            page.wait_for_load_state("networkidle")
            assert page.locator("h1").inner_text().lower() == name
            assert page.locator(f"nav a[href='/{name}']").get_attribute("aria-current") == "page"
        page.wait_for_selector("#plot canvas")
        page.click("nav a[href='/decisions']")
        page.click("text=refused")
        page.wait_for_load_state("networkidle")
        assert set(page.locator(".tag").all_inner_texts()) == {"deny"}
        assert wrong == []


def test_a_page_renews_itself() -> None:
    """Decisions are live: the page asks for itself again, and goes on doing so after what came was put in its place."""
    with served() as address, browsing() as (page, wrong):
        page.goto(f"{address}/decisions?token={TOKEN}")
        for _ in range(2):
            with page.expect_response(lambda answer: answer.url.endswith("/decisions"), timeout=20_000) as renewed:
                pass
            assert renewed.value.ok
        assert page.locator("#live").count() == 1
        assert page.locator("#live tbody tr").count() == 40
        assert wrong == []


def test_without_the_token_a_browser_sees_nothing() -> None:
    """The page says where the address is to be found, and shows no object's name."""
    with served() as address, browsing() as (page, _):
        answer = page.goto(f"{address}/overview")
        assert answer.status == 401
        assert "wharf status" in page.content()
        assert "research" not in page.content()
