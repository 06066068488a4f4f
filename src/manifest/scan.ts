// A scanner that finds where keys and values stand, and reads no value: parsers do that.
//
// What all three formats have in common is here: strings, lists and tables in brackets, comments.
// It is as strict as it needs to be to keep its way. Where it loses it, it stops, and what it has
// found so far still holds.

import { MAX_JSON_DEPTH } from "../limits.ts";
import type { KeyPath } from "./fault.ts";

export type Format = "toml" | "yaml" | "json";

/** What a scan has found. All places are offsets into the text. */
export interface Survey {
  /** By `pathKey`: where the key begins, and where its value does. */
  readonly keys: Map<string, number>;
  readonly values: Map<string, number>;
  /** Keys that stand in their table for the second time. */
  readonly twice: { readonly path: KeyPath; readonly at: number }[];
  /** Where statements (in YAML: lines) begin. */
  readonly statements: number[];
}

export function pathKey(path: KeyPath): string {
  return JSON.stringify(path);
}

const BLANK = /[ \t]/;
const LINE_END = /[\r\n]/;

/** A key without quotes, and a value without quotes or brackets. */
const KEY: Readonly<Record<Format, RegExp>> = {
  toml: /[A-Za-z0-9_-]+/y,
  yaml: /[^\s,[\]{}"'#&*!|>%@`?:]+/y,
  json: /(?!)/y,
};
const SCALAR: Readonly<Record<Format, RegExp>> = {
  toml: /[^\s,[\]{}#"'][^,[\]{}#\r\n]*/y,
  yaml: /(?:[^,[\]{}#]|(?<=\S)#)+/y,
  json: /[^\s,:[\]{}"']+/y,
};

export class Scanner {
  readonly text: string;
  readonly format: Format;
  readonly survey: Survey = { keys: new Map(), values: new Map(), twice: [], statements: [] };
  at = 0;
  /** Where a list or table is nested too deep, if one was met. */
  tooDeepAt: number | undefined;

  constructor(text: string, format: Format) {
    this.text = text;
    this.format = format;
  }

  get current(): string {
    return this.text[this.at] ?? "";
  }

  get isAtEnd(): boolean {
    return this.at >= this.text.length;
  }

  /** Goes on if `expected` stands here. */
  take(expected: string): boolean {
    if (!this.text.startsWith(expected, this.at)) return false;
    this.at += expected.length;
    return true;
  }

  skipBlanks(): void {
    while (BLANK.test(this.current)) this.at++;
  }

  /** Skips blanks, ends of lines and comments. */
  skipSpace(): void {
    for (;;) {
      if (BLANK.test(this.current) || LINE_END.test(this.current)) this.at++;
      else if (this.current === "#" && this.format !== "json") this.skipLine();
      else return;
    }
  }

  /** Goes to the beginning of the next line. */
  skipLine(): void {
    const end = this.text.indexOf("\n", this.at);
    this.at = end < 0 ? this.text.length : end + 1;
  }

  /** Whether nothing but a comment is left on this line. */
  isLineDone(): boolean {
    this.skipBlanks();
    return this.isAtEnd || LINE_END.test(this.current) || this.current === "#";
  }

  noteKey(path: KeyPath, at: number): void {
    const key = pathKey(path);
    if (!this.survey.keys.has(key)) this.survey.keys.set(key, at);
    else if (this.format !== "toml") this.survey.twice.push({ path, at });
  }

  noteValue(path: KeyPath, at: number): void {
    const key = pathKey(path);
    if (!this.survey.values.has(key)) this.survey.values.set(key, at);
  }

  /** A string in quotes; false: it has no end. */
  skipString(): boolean {
    const start = this.at;
    const quote = this.current;
    const triple = quote.repeat(3);
    if (this.format === "toml" && this.take(triple)) return this.#skipTriple(quote);
    this.at++;
    for (; !this.isAtEnd; this.at++) {
      const character = this.current;
      if (character === quote) {
        this.at++;
        if (this.format === "yaml" && quote === "'" && this.current === "'") continue;
        if (this.format !== "json" || isJson(this.text.slice(start, this.at))) return true;
        break;
      }
      if (character === "\\" && quote === '"') this.at++;
      else if (this.format !== "yaml" && LINE_END.test(character)) break;
    }
    this.at = start;
    return false;
  }

  #skipTriple(quote: string): boolean {
    for (; !this.isAtEnd; this.at++) {
      if (this.current === "\\" && quote === '"') this.at++;
      else if (this.take(quote.repeat(3))) {
        while (this.current === quote) this.at++; // up to two may belong to the text
        return true;
      }
    }
    return false;
  }

  /** A key, plain or in quotes, as it is meant; undefined: none is here. */
  readKey(): string | undefined {
    const start = this.at;
    if (this.current === '"' || (this.current === "'" && this.format !== "json")) {
      return this.skipString() ? this.#unquote(this.text.slice(start, this.at)) : undefined;
    }
    const word = this.#match(KEY[this.format]);
    this.at += word?.length ?? 0;
    return word;
  }

  /** Leaves what is hard about strings to the parser of the format. */
  #unquote(literal: string): string | undefined {
    if (!literal.includes("\\") && !literal.includes("''")) return literal.slice(1, -1);
    try {
      if (this.format === "json") return String(JSON.parse(literal));
      if (this.format === "yaml") return String(Bun.YAML.parse(literal));
      return String((Bun.TOML.parse(`key = ${literal}`) as { key: unknown }).key);
    } catch {
      return undefined;
    }
  }

  /** Keys with dots between them, as TOML has them, each with its offset; empty: none is here. */
  readDottedKeys(): { readonly name: string; readonly at: number }[] {
    const names: { name: string; at: number }[] = [];
    do {
      this.skipBlanks();
      const at = this.at;
      const name = this.readKey();
      if (name === undefined || names.length > MAX_JSON_DEPTH) return [];
      names.push({ name, at });
      this.skipBlanks();
    } while (this.format === "toml" && this.take("."));
    return names;
  }

  /** The value that begins here, with all that is in it; false: the way is lost. */
  scanValue(path: KeyPath, depth: number): boolean {
    this.noteValue(path, this.at);
    if (depth >= MAX_JSON_DEPTH && (this.current === "[" || this.current === "{")) {
      this.tooDeepAt = this.at;
      return false;
    }
    if (this.current === "[") return this.#scanList(path, depth);
    if (this.current === "{") return this.#scanTable(path, depth);
    if (this.current === '"' || (this.current === "'" && this.format !== "json")) {
      return this.skipString();
    }
    return this.#skipScalar();
  }

  #scanList(path: KeyPath, depth: number): boolean {
    this.at++;
    for (let index = 0; index === 0 || this.take(","); index++) {
      this.skipSpace();
      if (this.#mayEnd(index) && this.take("]")) return true;
      if (!this.scanValue([...path, index], depth + 1)) return false;
      this.skipSpace();
    }
    return this.take("]");
  }

  #scanTable(path: KeyPath, depth: number): boolean {
    this.at++;
    for (let index = 0; index === 0 || this.take(","); index++) {
      this.skipSpace();
      if (this.#mayEnd(index) && this.take("}")) return true;
      const inner = this.noteDottedKeys(path);
      if (inner === undefined) return false;
      this.skipSpace();
      if (this.take(this.format === "toml" ? "=" : ":")) {
        this.skipSpace();
        if (!this.scanValue(inner, depth + 1)) return false;
        this.skipSpace();
      } else if (this.format !== "yaml") return false;
    }
    return this.take("}");
  }

  /** JSON wants another value behind a comma. */
  #mayEnd(index: number): boolean {
    return index === 0 || this.format !== "json";
  }

  /** Reads the keys that stand here, within the table at `path`; returns the path of their value. */
  noteDottedKeys(path: KeyPath): KeyPath | undefined {
    const keys = this.readDottedKeys();
    if (keys.length === 0) return undefined;
    let inner = path;
    for (const { name, at } of keys) {
      inner = [...inner, name];
      this.noteKey(inner, at);
    }
    return inner;
  }

  /** What of the text matches here; the scanner stays. */
  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text)?.[0];
  }

  #skipScalar(): boolean {
    const word = this.#match(SCALAR[this.format])?.trimEnd();
    if (word === undefined || word === "") return false;
    if (this.format === "json" && !isJson(word)) return false;
    if (this.format === "yaml" && /:\s/.test(word)) return false; // a table without brackets
    this.at += word.length;
    return true;
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
