// Untrusted JSON text → a value, or one clear refusal: bounded nesting, no key twice. And the way back,
// for people.
//
// `JSON.parse` does the parsing. It has no bound of its own but the stack, and of two equal keys it
// silently keeps the last one, so a reader before us and a reader behind us could understand
// different things: both are looked for first.

import { OrchestratorError } from "./errors.ts";
import { MAX_JSON_DEPTH } from "./limits.ts";

/**
 * Parses JSON; `subject` begins the message of an error.
 * @throws `bad_request`
 */
export function parseJson(text: string, subject: string = "Cannot parse request"): unknown {
  const fault = structureFault(text);
  if (fault !== undefined) throw new OrchestratorError("bad_request", `${subject}: ${fault}`);
  return parseTrusted(text, subject);
}

/**
 * Parses JSON of somebody who decides for us anyway, as a daemon does for its client: without the
 * look at its structure, which takes a program that has just begun longer than all the rest.
 * @throws `bad_request`
 */
export function parseTrusted(text: string, subject: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    const reason = (error as Error).message.replace(/^JSON Parse error: /, "");
    throw new OrchestratorError("bad_request", `${subject}: it is not valid JSON (${reason})`);
  }
}

/** What JSON may hold as it is, and what a terminal obeys or shows in another place. */
const UNSHOWN = /[\x7f-\x9f\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/** JSON that may be shown: whatever its texts hold drives no terminal, and none of them ends a line. */
export function showJson(value: unknown, indent?: number): string {
  const unicode = (character: string): string =>
    `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value, undefined, indent).replaceAll(UNSHOWN, unicode);
}

/** Whether a value is an object with keys, and neither null nor a list. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Says what `JSON.parse` would not: nested too deep, or a key twice. Text that is no JSON may pass. */
export function structureFault(text: string): string | undefined {
  /** For each open object its keys, for each open list undefined. */
  const open: (Set<string> | undefined)[] = [];
  let key = false; // whether the next string is a key
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '"') {
      const end = stringEnd(text, i);
      const keys = open.at(-1);
      if (key && keys !== undefined) {
        const name = text.slice(i + 1, end);
        const spelled = name.includes("\\") ? unescape(name) : name;
        if (keys.has(spelled))
          return `the key ${JSON.stringify(spelled.slice(0, 64))} is there twice`;
        keys.add(spelled);
      }
      key = false;
      i = end;
    } else if (character === "{" || character === "[") {
      open.push(character === "{" ? new Set() : undefined);
      if (open.length > MAX_JSON_DEPTH) return `nested deeper than ${MAX_JSON_DEPTH} levels`;
      key = character === "{";
    } else if (character === "}" || character === "]") open.pop();
    else if (character === ",") key = open.at(-1) !== undefined;
  }
  return undefined;
}

/** The place of the quote that ends the string whose first quote stands at `start`. */
function stringEnd(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end >= 0 && isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end < 0 ? text.length : end;
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text[at - 1 - backslashes] === "\\") backslashes++;
  return backslashes % 2 === 1;
}

function unescape(name: string): string {
  try {
    return String(JSON.parse(`"${name}"`));
  } catch {
    return name; // the parser will say what is wrong with it
  }
}
