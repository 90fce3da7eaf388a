// Strings that the IAB's own encoders make of choices drawn by chance, and what its decoders say that they allow vendor 7:
// `[kind, string, mayRecord, mayBeInAudiences, sections]` a line. By the rules of config/README.md (Consent), written anew.
const [, , root, seedText, countText] = process.argv;
const { TCModel, TCString, GVL, PurposeRestriction, RestrictionType } = require(root + "/@iabtechlabtcf/core/lib/cjs/index.js");
const { GppModel, Sections } = require(root + "/@iabgpp/cmpapi/lib/cjs/index.js");

let state = Number(seedText);
// mulberry32: the same choices on every run.
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const often = (share) => random() < share;
const below = (count) => Math.floor(random() * count);
const US = 7;

/** A vendor list on which vendors are, with every purpose on either ground. */
function vendorList(vendors, tcfPolicyVersion) {
  const many = (count) => Object.fromEntries(Array.from({ length: count }, (_, at) => [at + 1, { id: at + 1, name: "n", description: "d", illustrations: [] }]));
  const flexible = [2, 7, 8, 9, 10, 11];
  const of = (id) => ({ id, name: "v" + id, purposes: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], legIntPurposes: [], flexiblePurposes: flexible.slice(0, 5),
    specialPurposes: [], features: [], specialFeatures: [], policyUrl: "", cookieMaxAgeSeconds: 1, usesCookies: true });
  return new GVL({ gvlSpecificationVersion: 3, vendorListVersion: 120, tcfPolicyVersion, lastUpdated: "2026-01-01T00:00:00Z",
    purposes: many(11), specialPurposes: many(3), features: many(3), specialFeatures: many(2), stacks: {}, dataCategories: {},
    vendors: Object.fromEntries(vendors.map((id) => [id, of(id)])) });
}

function tcf() {
  const others = Array.from({ length: below(40) }, () => 1 + below(1200));
  const vendors = [...new Set([US, ...others])].sort((a, b) => a - b);
  const model = new TCModel(vendorList(vendors, often(0.07) ? 2 + below(2) : 4 + below(2)));
  model.cmpId = 2 + below(400);
  model.cmpVersion = 1 + below(40);
  model.consentLanguage = ["EN", "DE", "FR", "PL"][below(4)];
  model.publisherCountryCode = ["DE", "FR", "IT"][below(3)];
  model.isServiceSpecific = !often(0.05);
  model.useNonStandardTexts = often(0.2);
  for (let purpose = 1; purpose <= 11; purpose++) if (often(0.85)) model.purposeConsents.set(purpose);
  for (const purpose of [2, 7, 8, 9, 10, 11]) if (often(0.4)) model.purposeLegitimateInterests.set(purpose);
  for (const vendor of vendors) {
    if (often(vendor === US ? 0.85 : 0.5)) model.vendorConsents.set(vendor);
    if (often(0.3)) model.vendorLegitimateInterests.set(vendor);
  }
  const withDisclosed = !often(0.1);
  if (withDisclosed) for (const vendor of vendors) if (often(vendor === US ? 0.95 : 0.7)) model.vendorsDisclosed.set(vendor);
  for (let turn = below(4); turn > 0; turn--) {
    const vendor = often(0.3) ? US : vendors[below(vendors.length)];
    const purpose = 1 + below(10);
    model.publisherRestrictions.add(vendor, new PurposeRestriction(purpose, [RestrictionType.NOT_ALLOWED, RestrictionType.REQUIRE_CONSENT, RestrictionType.REQUIRE_LI][below(3)]));
  }
  if (often(0.3)) { model.publisherConsents.set(1 + below(11)); model.numCustomPurposes = below(3); }
  const isOld = often(0.4);
  const made = new Date(isOld ? "2025-06-10T00:00:00Z" : "2026-06-10T00:00:00Z");
  model.created = made;
  model.lastUpdated = made;
  let text = TCString.encode(model, { isForVendors: true });
  // The encoder writes the segment whether anybody was disclosed or not; older platforms left it out.
  if (!withDisclosed) text = text.split(".").filter((segment, at) => at === 0 || segment[0] !== "I").join(".");
  return { text, ...allowed(TCString.decode(text), /\.I/.test(text), made) };
}

/** What the decoded string allows. */
function allowed(model, hasDisclosed, made) {
  const isSound = model.cmpId > 1 && Number(model.policyVersion) >= 4 && model.isServiceSpecific && (hasDisclosed || made < new Date("2026-02-28T00:00:00Z"));
  const isTold = !hasDisclosed || model.vendorsDisclosed.has(US);
  const restricted = (purpose, types) => model.publisherRestrictions.getRestrictions(US).some((one) => one.purposeId === purpose && types.includes(one.restrictionType));
  const byConsent = (purpose) => isTold && model.purposeConsents.has(purpose) && model.vendorConsents.has(US)
    && !restricted(purpose, [RestrictionType.NOT_ALLOWED, RestrictionType.REQUIRE_LI]);
  const mayRecord = isSound && byConsent(1);
  return { mayRecord, mayBeInAudiences: mayRecord && byConsent(3) && byConsent(4) };
}

const states = [...Sections.SECTION_ID_NAME_MAP].filter(([id]) => id >= 7);

function unitedStates() {
  const model = new GppModel();
  const chosen = [...new Set(Array.from({ length: 1 + below(3) }, () => states[below(states.length)]))];
  const applies = chosen.filter((_, at) => at === 0 || often(0.5));
  for (const [, name] of chosen) {
    model.setFieldValue(name, "SaleOptOut", 0);
    for (const [field, value] of Object.entries(model.getSection(name))) {
      const each = (draw) => model.setFieldValue(name, field, Array.isArray(value) ? value.map(draw) : draw());
      if (/Version|SegmentType/.test(field)) continue;
      if (/Included$/.test(field)) model.setFieldValue(name, field, often(0.6));
      else if (field === "Gpc") model.setFieldValue(name, field, often(0.1));
      else if (field === "MspaCoveredTransaction") model.setFieldValue(name, field, 1 + below(2));
      else if (/^(Sale|Sharing|TargetedAdvertising)OptOut$/.test(field)) each(() => (often(0.15) ? 1 : often(0.5) ? 2 : 0));
      else if (/KnownChild/.test(field)) each(() => (often(0.04) ? 1 + below(2) : 0));
      else each(() => below(3));
    }
  }
  const text = model.encode();
  const read = new GppModel(text);
  const isOptedOut = applies.some(([, name]) => {
    const get = (field) => (hasField(read, name, field) ? read.getFieldValue(name, field) : undefined);
    const isGpc = get("GpcSegmentIncluded") !== false && get("Gpc") === true;
    const isOut = ["SaleOptOut", "SharingOptOut", "TargetedAdvertisingOptOut"].some((field) => get(field) === 1);
    return isGpc || isOut || [get("KnownChildSensitiveDataConsents") || 0].flat().some((age) => age !== 0);
  });
  return { text, sections: applies.map(([id]) => id), mayRecord: !isOptedOut, mayBeInAudiences: !isOptedOut };
}

function hasField(model, name, field) {
  try {
    return model.getFieldValue(name, field) !== undefined;
  } catch {
    return false;
  }
}

for (let turn = Number(countText); turn > 0; turn--) {
  const eu = tcf();
  console.log(JSON.stringify(["tcf", eu.text, eu.mayRecord, eu.mayBeInAudiences, []]));
  const us = unitedStates();
  console.log(JSON.stringify(["gpp", us.text, us.mayRecord, us.mayBeInAudiences, us.sections]));
}
