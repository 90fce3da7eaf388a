/**
 * The browser tag: page views, clicks and the page's own events, as far as the visitor allows.
 *
 * <script async src="https://HOST/t.js" data-site="KEY"></script>
 */

import { look, lookForAWhile, standing, stopLooking } from "./consent";
import { choose, open, put, warn } from "./delivery";
import type { Sent } from "./delivery";

interface Call {
  (...call: unknown[]): void;
  /** Calls made before the tag was there. */
  q?: ArrayLike<unknown>[];
  /** The key of the site, once the tag is there. */
  site?: string;
}

declare global {
  interface Window {
    throng?: Call;
  }
  interface Document {
    prerendering?: boolean;
  }
}

const PREFIX = "data-throng-";

/** The page that is shown, as events name it, and the one before it. */
let page = "";
let referrer = document.referrer;

/** The page's address. Its fragment counts where it is a route, and is else nobody's business: tokens travel there. */
function here(): string {
  return location.href.replace(/#(?![/!]).*/, "");
}

function track(event: Sent): void {
  look(decide);
  put(
    Object.assign(
      {
        message_id: crypto.getRandomValues(new Uint32Array(4)).join("-"),
        time: Date.now(),
        page: { url: page, referrer: referrer || undefined, title: document.title },
      },
      event,
    ),
  );
}

/** A page view, where the page is another one than before, or is seen `again`. */
function view(again?: boolean): void {
  const url = here();
  if (url === page && !again) return;
  const isMove = page && url !== page;
  if (isMove) referrer = page;
  page = url;
  const of = { url, referrer: referrer || undefined };
  const seen = (): void => track({ event: "page_view", page: Object.assign(of, { title: document.title }) });
  // What changes the address changes the title next.
  if (isMove) setTimeout(seen);
  else seen();
}

function decide(): void {
  // Who consents after having refused is on this page from now on.
  if (choose(...standing())) view(true);
}

function clicked(event: MouseEvent): void {
  const target = event.composedPath()[0];
  const element = target instanceof Element && target.closest("[" + PREFIX + "event]");
  if (!element) return;
  const props: { [name: string]: string } = {};
  for (const { name, value } of Array.from(element.attributes)) {
    if (name.indexOf(PREFIX) === 0) props[name.slice(PREFIX.length)] = value;
  }
  const name = props.event;
  delete props.event;
  if (name) track({ event: name, props });
}

/** `throng("event", "name", { … })`, or an event in its canonical form: `throng("event", { event: "name", … })`. */
const call: Call = (what, first, props) => {
  const event = (typeof first === "string" ? { event: first, props } : first) as Sent | undefined;
  if (what === "event" && event && event.event && typeof event.event === "string") track(event);
  else warn('expected throng("event", "name", { … }) or throng("event", { event: "name", … })');
};

function start(): void {
  lookForAWhile(decide);
  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name];
    history[name] = function (...state) {
      original.apply(this, state);
      view();
    };
  }
  addEventListener("popstate", () => view());
  // A page that comes back from the browser's cache is seen anew, without being loaded.
  addEventListener("pageshow", (event) => event.persisted && view(true));
  // On the way down, so that no handler of the page can keep it.
  document.addEventListener("click", clicked, true);
  view();
}

const script = document.currentScript as HTMLScriptElement | null;
const site = script && script.dataset.site;

function run(): void {
  const early = window.throng;
  if (!script || !site) {
    return warn('the tag needs its site: <script async src="https://HOST/t.js" data-site="KEY"></script>');
  }
  if (early && early.site) {
    return warn("the tag is on this page already, for the site " + early.site);
  }
  call.site = site;
  window.throng = call;
  // Before the line hears of it: a page without an interface that goes before it has loaded says nothing of consent.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") {
      stopLooking();
      decide();
    }
  });
  open(new URL("v1/events", script.src).href, site);
  start();
  for (const calls of (early && early.q) || []) call(...Array.from(calls));
}

// A page that the browser prepares may never be seen.
if (document.prerendering) document.addEventListener("prerenderingchange", run, { once: true });
else run();
