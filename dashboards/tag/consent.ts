/**
 * What a page says of its visitor's choice: by TCF (`__tcfapi`), by GPP (`__gpp`) and by Global Privacy Control.
 *
 * An interface that is there and has not decided leaves everything undecided, however long that takes: where it
 * applies, silence is no consent.
 */

/** As `consent` of a canonical event has it. */
export interface Said {
  gdpr?: 0 | 1;
  tcf?: string;
  gpp?: string;
  gpp_sid?: number[];
  us_privacy?: string;
}

/**
 * What may be done: nothing yet, all that the server takes, or nothing.
 *
 * A refusal that is seen here is sure. Whether everything else is a consent depends on the site's vendor id, the
 * publisher's restrictions and the sections of GPP: the server judges that, and its answer says so.
 */
export type Standing = "undecided" | "allowed" | "refused";

interface Decision {
  said: Said;
  isRefused: boolean;
}

interface TcData {
  gdprApplies?: boolean;
  tcString?: string;
  eventStatus?: string;
  purpose?: { consents: { [purpose: number]: boolean } };
}

interface GppEvent {
  pingData?: {
    signalStatus?: string;
    gppString?: string;
    applicableSections?: number[];
    parsedSections?: unknown;
  };
}

declare global {
  interface Window {
    __tcfapi?: (
      command: "addEventListener",
      version: 2,
      listener: (data: TcData | null, isSuccess: boolean) => void,
    ) => void;
    __gpp?: (command: "addEventListener", listener: (event: GppEvent | null) => void) => void;
  }
  interface Navigator {
    globalPrivacyControl?: boolean;
  }
}

/** For so long a page without an interface may still get one, in milliseconds; or until it has loaded. */
const LOOK = 3000;

/** Of each interface that was found; `undefined` is no decision. */
const decisions: { tcf?: Decision | undefined; gpp?: Decision | undefined } = {};
let isLooking = true;

/** Opt-outs as the sections of the United States write them, and their part for Global Privacy Control. */
const OPT_OUT = /"(Sale|Sharing|TargetedAdvertising)OptOut":1|"Gpc":true/;

/** Listens to what is there and was not before. `changed` is called when something is decided or taken back. */
export function look(changed: () => void): void {
  if (window.__tcfapi && !("tcf" in decisions)) {
    decisions.tcf = undefined;
    window.__tcfapi("addEventListener", 2, (data, isSuccess) => {
      if (!isSuccess || !data) return;
      const isDecided = data.eventStatus === "tcloaded" || data.eventStatus === "useractioncomplete";
      if (data.gdprApplies === false) {
        decisions.tcf = { said: { gdpr: 0 }, isRefused: false };
      } else if (data.gdprApplies && isDecided) {
        // Without purpose 1 nothing may be kept on the device, whoever asks.
        const isRefused = !(data.purpose && data.purpose.consents[1]);
        decisions.tcf = { said: { gdpr: 1, tcf: data.tcString || "" }, isRefused };
      } else {
        // The dialogue is open. What was decided before stands until it is decided anew.
        return;
      }
      changed();
    });
  }
  if (window.__gpp && !("gpp" in decisions)) {
    decisions.gpp = undefined;
    window.__gpp("addEventListener", (event) => {
      const ping = event && event.pingData;
      if (!ping) return;
      // Between "not ready" and "ready" the string may not be used, also where there was one before.
      decisions.gpp =
        ping.signalStatus === "ready"
          ? {
              said: { gpp: ping.gppString || "", gpp_sid: ping.applicableSections || [] },
              isRefused: OPT_OUT.test(JSON.stringify(ping.parsedSections || "")),
            }
          : undefined;
      changed();
    });
  }
}

/** Looks until the page has loaded, or for a while. */
export function lookForAWhile(changed: () => void): void {
  const until = Date.now() + LOOK;
  const again = (): void => {
    look(changed);
    if (document.readyState === "complete" || Date.now() > until) stopLooking();
    else setTimeout(again, 50);
    changed();
  };
  again();
}

/** From now on a page without an interface is one that says nothing. */
export function stopLooking(): void {
  isLooking = false;
}

/** What may be done now, and what the page says. */
export function standing(): [Standing, Said] {
  const found = Object.keys(decisions).map((name) => decisions[name as keyof typeof decisions]);
  const decided = found.filter((decision): decision is Decision => !!decision);
  if (decided.length < found.length || (isLooking && !found.length)) return ["undecided", {}];
  const said: Said = Object.assign({}, ...decided.map((decision) => decision.said));
  // Browsers that say so in a header say it here, too; some extensions say it here alone.
  if (navigator.globalPrivacyControl) said.us_privacy = "1-Y-";
  const isRefused = said.us_privacy || decided.some((decision) => decision.isRefused);
  return [isRefused ? "refused" : "allowed", said];
}
