// The text of a manifest → its value, and the places of its keys in the text.
//
// Bun's parsers give values but no places, not even of what they cannot parse. A scanner of our own
// finds the places; a statement that cannot be parsed is found by parsing ever shorter beginnings.

import { MAX_JSON_DEPTH } from "../limits.ts";
import { escapeText } from "../log.ts";
import { type KeyPath, type Place } from "./fault.ts";
import { type Format, pathKey, Scanner } from "./scan.ts";
import { scanToml } from "./toml.ts";
import { scanYaml } from "./yaml.ts";

const FORMATS: Readonly<Record<string, Format>> = {
  ".toml": "toml",
  ".yaml": "yaml",
  ".yml": "yaml",
  ".json": "json",
};

/** The format of a file, by the end of its name. */
export function formatOf(file: string): Format | undefined {
  const end = /\.[a-z]+$/.exec(file)?.[0] ?? "";
  return Object.hasOwn(FORMATS, end) ? FORMATS[end] : undefined;
}

/** Tells where things stand; undefined: it cannot know. */
export interface Places {
  /** Of a key, or of a list's item. */
  readonly ofKey: (path: KeyPath) => Place | undefined;
  /** Of a value; of a table that is spread over the file, of the first mention. */
  readonly ofValue: (path: KeyPath) => Place | undefined;
}

/** Of values that come from no text. */
export const NO_PLACES: Places = { ofKey: () => undefined, ofValue: () => undefined };

export interface ParsedValue {
  readonly kind: "value";
  readonly value: unknown;
  readonly places: Places;
  /** Keys of which the parser has silently kept the last one only. */
  readonly twice: readonly { readonly path: KeyPath; readonly place: Place }[];
}

export interface SyntaxFault {
  readonly kind: "fault";
  readonly message: string;
  readonly place: Place | undefined;
}

/** Parses a text, and finds the places in it; or where it cannot be parsed. */
export function parseText(source: string, format: Format): ParsedValue | SyntaxFault {
  const text = source.replace(/^\uFEFF/, "");
  const scanner = new Scanner(text, format);
  const isKnown = scan(scanner);
  const placeAt = placesIn(text);
  if (scanner.tooDeepAt !== undefined) {
    const message = `it is nested deeper than ${MAX_JSON_DEPTH} levels`;
    return { kind: "fault", message, place: placeAt(scanner.tooDeepAt) };
  }
  try {
    const value = PARSE[format](text);
    const isList = format === "yaml" && Array.isArray(value);
    if (isList && !isKnown && /^(---|\.\.\.)/.test(text.slice(scanner.at))) {
      // The parser makes a list of them, which nobody has written.
      const message = "a second document begins here, and a manifest is one";
      return { kind: "fault", message, place: placeAt(scanner.at) };
    }
    const { keys, values, twice } = scanner.survey;
    const place = (offset: number | undefined): Place | undefined =>
      offset === undefined ? undefined : placeAt(offset);
    return {
      kind: "value",
      value,
      places: {
        ofKey: (path) => place(keys.get(pathKey(path)) ?? values.get(pathKey(path))),
        ofValue: (path) => place(values.get(pathKey(path)) ?? keys.get(pathKey(path))),
      },
      twice: isKnown ? twice.map(({ path, at }) => ({ path, place: placeAt(at) })) : [],
    };
  } catch (error) {
    const reason = escapeText((error as Error).message.replace(/^\w+ Parse error: /, ""));
    const message =
      error instanceof RangeError
        ? "it is nested too deep"
        : `it is not valid ${format.toUpperCase()} (${reason})`;
    const lostAt = isKnown ? undefined : scanner.at;
    const offset = format === "json" ? lostAt : badStatement(scanner);
    return {
      kind: "fault",
      message,
      place: offset === undefined ? undefined : placeAt(offset),
    };
  }
}

const PARSE: Readonly<Record<Format, (text: string) => unknown>> = {
  toml: (text) => Bun.TOML.parse(text),
  yaml: (text) => Bun.YAML.parse(text),
  json: (text) => JSON.parse(text),
};

/** Scans the whole text; false: the way was lost, and no duplicate that it saw is certain. */
function scan(scanner: Scanner): boolean {
  if (scanner.format === "toml") return scanToml(scanner);
  if (scanner.format === "yaml") return scanYaml(scanner);
  scanner.skipSpace();
  if (!scanner.scanValue([], 0)) return false;
  scanner.skipSpace();
  return scanner.isAtEnd;
}

/** The first statement that the parser refuses. Whatever begins with a bad text is bad, too. */
function badStatement({ text, format, survey: { statements } }: Scanner): number | undefined {
  let good = 0; // the statements before this one can be parsed
  let bad = statements.length;
  while (bad - good > 1) {
    const middle = (good + bad) >>> 1;
    if (canParse(text.slice(0, statements[middle]), format)) good = middle;
    else bad = middle;
  }
  return statements[good];
}

function canParse(text: string, format: Format): boolean {
  try {
    PARSE[format](text);
    return true;
  } catch {
    return false;
  }
}

/** Tells line and column of an offset. */
function placesIn(text: string): (offset: number) => Place {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return (offset) => {
    let line = 0; // begins at or before the offset
    for (let beyond = starts.length; beyond - line > 1;) {
      const middle = (line + beyond) >>> 1;
      if ((starts[middle] as number) <= offset) line = middle;
      else beyond = middle;
    }
    const before = text.slice(starts[line], offset);
    return { line: line + 1, column: Array.from(before).length + 1 };
  };
}
