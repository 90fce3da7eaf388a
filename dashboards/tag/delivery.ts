/**
 * The line of events to the server, and what becomes of it.
 *
 * One request is under way at a time: the first answer brings the cookie that the next request carries, and says
 * whether the server takes the visitor's choice for a consent. A beacon has no answer, so that what it lost could not
 * be sent again: it is for a page that goes. Everything is kept in memory, no longer than the page.
 */

import type { Said, Standing } from "./consent";

/** A canonical event. One without a name is the notice of a choice: the server judges it, and records no event. */
export interface Sent {
  event?: string;
  [key: string]: unknown;
}

interface Answer {
  rejected: { code: string; message: string }[];
  /** The partners that the browser's cookie is to be synced with: as many as a page may have. */
  sync?: string[];
}

/** The most events in line; later ones are lost. */
const MOST = 100;
/** The most bytes of an event: the server takes 32 KiB, strings of consent included. */
const EVENT_BYTES = 24000;
/** The most bytes of a request: browsers let a page that goes have 64 KiB under way. */
const REQUEST_BYTES = 60000;
/** The wait after the first failure and the longest, in milliseconds; between them it doubles. */
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 300000;

let line: Sent[] = [];
let underWay: Sent[] = [];
let failures = 0;
let hasSynced = false;
let timer: ReturnType<typeof setTimeout> | undefined;

let url: string;
let site: string;
let current: Standing = "undecided";
let said: Said = {};
/** The text of what was decided last, and what came of it, by the server's word where that was asked. */
let heard: string | undefined;
let judged: Standing | undefined;

/** Says where events go, and for which site. */
export function open(to: string, key: string): void {
  url = to;
  site = key;
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") leave();
  });
}

/** Puts an event in line, and sends it when that is allowed. */
export function put(event: Sent): void {
  if (current === "refused") return;
  let copy;
  try {
    const text = JSON.stringify(event);
    if (bytes(text) > EVENT_BYTES) return warn("an event is too large and was not sent: at most 24,000 bytes");
    copy = JSON.parse(text);
  } catch (error) {
    return warn("an event is no JSON and was not sent: " + error);
  }
  if (line.length < MOST) line.push(copy);
  flush();
}

/** Takes what the visitor chose. Tells whether one who refused has consented. */
export function choose(standing: Standing, words: Said): boolean {
  if (standing === "undecided") {
    current = standing;
    return false;
  }
  const text = JSON.stringify(words);
  const before = judged;
  if (text === heard) {
    current = judged || standing;
  } else {
    heard = text;
    said = words;
    current = judged = standing;
    // A withdrawal is told at once, with nothing else; so is a change of which only the server knows what it means.
    if (standing === "refused") line = [{}];
    else if (before === "allowed") line = [{} as Sent].concat(line.filter(isEvent));
  }
  flush();
  return before === "refused" && current === "allowed";
}

/** Sends what is in line, unless a request is under way or has failed a moment ago. */
function flush(): void {
  if (underWay.length || timer || current === "undecided" || !line.length) return;
  const [batch, body] = next();
  const under = heard;
  underWay = batch;
  post(body)
    .then((answer): Answer | Promise<Answer> => {
      if (answer.ok) return answer.json();
      if (answer.status > 499 || answer.status === 429 || answer.status === 408) throw answer;
      return { rejected: [{ code: "", message: "the server answered " + answer.status }] };
    })
    .then(
      ({ rejected, sync }) => {
        failures = 0;
        leaveLine(batch);
        for (const { code, message } of rejected) {
          if (code === "consent") {
            if (under === heard) {
              current = judged = "refused";
              line = [];
            }
          } else if (code !== "event_name" || batch.some(isEvent)) {
            warn("an event was not taken: " + message);
          }
        }
        if (sync && !hasSynced) {
          hasSynced = true;
          syncNext(sync, under);
        }
        flush();
      },
      (failure) => {
        underWay = [];
        const wait = Math.min(FIRST_WAIT * 2 ** failures++, LONGEST_WAIT);
        const asked = failure.headers && Number(failure.headers.get("Retry-After")) * 1000;
        timer = setTimeout(
          () => {
            timer = undefined;
            flush();
          },
          // Some of it by chance: pages that failed together shall not come back together.
          Math.max(wait * (0.5 + Math.random() / 2), Math.min(asked || 0, LONGEST_WAIT)),
        );
      },
    );
}

/**
 * Sends what is in line when the page may go. It may also come back, and a beacon does not say whether it arrived: so
 * what it carried stays in line, and the server counts a message id once.
 */
function leave(): void {
  const [batch, body] = next();
  if (current === "undecided" || !batch.length) return;
  if (!(navigator.sendBeacon && navigator.sendBeacon(url, body))) post(body).catch(() => {});
}

/**
 * Syncs with one partner after the other, as long as the choice is the one that the server has judged: each answer says
 * in one cookie where the browser has been.
 */
function syncNext(partners: string[], under: string | undefined): void {
  const partner = partners.shift();
  if (!partner || under !== heard || current !== "allowed") return;
  const query = new URLSearchParams({ s: site });
  for (const [name, value] of Object.entries(said)) query.set(name === "tcf" ? "gdpr_consent" : name, String(value));
  const image = new Image();
  image.onload = image.onerror = () => syncNext(partners, under);
  image.src = url.replace("v1/events", "sync/" + partner) + "?" + query;
}

/** The next events in line that are not under way, as a body. A notice goes alone: what follows depends on its answer. */
function next(): [Sent[], string] {
  const batch: Sent[] = [];
  const texts: string[] = [];
  let size = 0;
  for (const event of line) {
    if (underWay.indexOf(event) >= 0) {
      if (!isEvent(event)) break;
      continue;
    }
    const text = JSON.stringify(Object.assign({}, event, { site, consent: said, sentAt: Date.now() }));
    size += bytes(text) + 1;
    if (batch.length && size > REQUEST_BYTES) break;
    batch.push(event);
    texts.push(text);
    if (!isEvent(event)) break;
  }
  return [batch, "[" + texts + "]"];
}

function leaveLine(batch: Sent[]): void {
  underWay = [];
  line = line.filter((event) => batch.indexOf(event) < 0);
}

/** Whether it is no notice. */
function isEvent(sent: Sent): boolean {
  return !!sent.event;
}

/** As text, which no browser asks the server about first. */
function post(body: string): Promise<Response> {
  return fetch(url, { method: "POST", body, credentials: "include", keepalive: true });
}

function bytes(text: string): number {
  return new Blob([text]).size;
}

/** Tells the page's developer. */
export function warn(message: string): void {
  console.warn("throng: " + message);
}
