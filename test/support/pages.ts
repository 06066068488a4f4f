// Random values, written as TOML, YAML and JSON in many styles, with where every key and value stands.

import type { KeyPath } from "../../src/manifest/fault.ts";
import { type Format, pathKey } from "../../src/manifest/scan.ts";
import type { Random } from "./random.ts";

export type Tree = string | number | boolean | readonly Tree[] | { readonly [key: string]: Tree };

type Entry = readonly [key: string, value: Tree];

const KEYS = [
  "a",
  "b-1",
  "c_d",
  "7",
  "x.y",
  "é",
  "a b",
  'q"t',
  "it's",
  "true",
  "#k",
  "k:",
  "=",
  "[e]",
];
const PIECES = ["x", "é😀", "#", " # ", "]", "}", "{", ",", ": ", "=", '"', "'", "\\", "- ", " "];

export function randomTree(random: Random): { readonly [key: string]: Tree } {
  return randomTable(random, 3);
}

function randomTable(random: Random, depth: number): { readonly [key: string]: Tree } {
  const table: Record<string, Tree> = {};
  for (let i = random.size(0, 5); i >= 0; i--)
    table[random.pick(KEYS)] = randomValue(random, depth);
  return table;
}

function randomValue(random: Random, depth: number): Tree {
  if (depth > 0 && random.chance(0.3)) return randomTable(random, depth - 1);
  if (depth > 0 && random.chance(0.3)) {
    const isOfTables = random.chance(0.5);
    return Array.from({ length: random.size(0, 4) }, () => {
      return isOfTables ? randomTable(random, depth - 1) : randomValue(random, depth - 1);
    });
  }
  if (random.chance(0.2)) return random.int(-99, 99);
  if (random.chance(0.1)) return random.chance(0.5);
  return random.text(random.size(0, 6), PIECES);
}

/** A text that is written piece by piece, and remembers where keys and values begin. */
export class Page {
  text = "";
  readonly keys: Map<string, number> = new Map();
  readonly values: Map<string, number> = new Map();
  readonly #random: Random;
  readonly #format: Format;
  readonly #newline: string;

  constructor(random: Random, format: Format, tree: { readonly [key: string]: Tree }) {
    this.#random = random;
    this.#format = format;
    this.#newline = random.chance(0.3) ? "\r\n" : "\n";
    if (format === "toml") this.#tomlTable([], Object.entries(tree), []);
    else if (format === "yaml" && Object.keys(tree).length > 0) this.#yamlTable([], tree, 0);
    else this.#value([], tree);
  }

  #key(path: KeyPath, spelled: string): void {
    if (!this.keys.has(pathKey(path))) this.keys.set(pathKey(path), this.text.length);
    this.text += spelled;
  }

  #mark(path: KeyPath): void {
    if (!this.values.has(pathKey(path))) this.values.set(pathKey(path), this.text.length);
  }

  #spellKey(key: string): string {
    if (this.#format !== "json" && /^[a-z0-9_-]+$/.test(key) && this.#random.chance(0.7))
      return key;
    if (this.#format !== "json" && !/['\\]/.test(key) && this.#random.chance(0.5))
      return `'${key}'`;
    return JSON.stringify(key);
  }

  #comment(): string {
    const text = this.#random.text(this.#random.size(0, 4), [...PIECES, "[a]", "b = 1", "k: v"]);
    return this.#random.chance(0.2) && this.#format !== "json" ? ` # ${text}` : "";
  }

  /** What may stand between the parts of a list or table in brackets. */
  #gap(): string {
    const isLines = this.#format !== "yaml" && this.#random.chance(0.2);
    return isLines ? `${this.#comment()}${this.#newline}  ` : " ".repeat(this.#random.int(0, 1));
  }

  /** A value on one line, or in brackets. */
  #value(path: KeyPath, value: Tree): void {
    this.#mark(path);
    if (typeof value === "string") this.text += this.#spellText(value);
    else if (typeof value !== "object") this.text += String(value);
    else if (Array.isArray(value)) {
      this.#brackets("[]", value as Tree[], (item, index) => this.#value([...path, index], item));
    } else {
      this.#brackets("{}", Object.entries(value), ([key, inner]) => {
        this.#key([...path, key], this.#spellKey(key));
        this.text += this.#format === "toml" ? " = " : ": ";
        this.#value([...path, key], inner);
      });
    }
  }

  #brackets<T>(pair: string, items: readonly T[], write: (item: T, index: number) => void): void {
    this.text += pair[0] + this.#gap();
    for (const [index, item] of items.entries()) {
      if (index > 0) this.text += `,${this.#gap()}`;
      write(item, index);
      this.text += this.#gap();
    }
    this.text += pair[1];
  }

  #spellText(text: string): string {
    const random = this.#random;
    if (this.#format === "json" || random.chance(0.4)) return JSON.stringify(text);
    if (this.#format === "yaml") {
      return random.chance(0.5) ? `'${text.replaceAll("'", "''")}'` : JSON.stringify(text);
    }
    if (text.includes("'")) return `"""${JSON.stringify(text).slice(1, -1)}"""`;
    return random.chance(0.5) ? `'${text}'` : `'''${this.#newline}${text}'''`;
  }

  #lineEnd(): void {
    const lines = this.#random.chance(0.1) ? 2 : 1;
    for (let i = 0; i < lines; i++) this.text += this.#comment() + this.#newline;
  }

  /** The entries of a table whose header stands above; tables of their own come last. */
  #tomlTable(path: KeyPath, entries: readonly Entry[], header: readonly string[]): void {
    const sections: Entry[] = [];
    for (const [key, value] of entries) {
      const isTable = typeof value === "object" && !Array.isArray(value);
      const isTables =
        Array.isArray(value) &&
        value.length > 0 &&
        value.every((item) => typeof item === "object" && !Array.isArray(item));
      if ((isTable || isTables) && this.#random.chance(0.7)) sections.push([key, value]);
      else {
        this.#key([...path, key], this.#spellKey(key));
        this.text += this.#random.pick([" = ", "=", "  =  "]);
        this.#value([...path, key], value);
        this.#lineEnd();
      }
    }
    for (const [key, value] of sections) {
      const isList = Array.isArray(value);
      const items = (isList ? value : [value]) as { readonly [key: string]: Tree }[];
      for (const [index, item] of items.entries()) {
        const inner = [...path, key];
        this.#tomlHeader(inner, isList ? [...inner, index] : inner, isList);
        this.#tomlTable(isList ? [...inner, index] : inner, Object.entries(item), [...header, key]);
        this.#lineEnd();
      }
    }
  }

  #tomlHeader(keyPath: KeyPath, path: KeyPath, isList: boolean): void {
    this.#mark(path);
    this.text += isList ? "[[" : "[";
    for (const [index, key] of keyPath.entries()) {
      if (typeof key === "number") continue;
      if (index > 0) this.text += this.#random.pick([".", " . "]);
      this.#key(keyPath.slice(0, index + 1), this.#spellKey(key));
    }
    this.text += isList ? "]]" : "]";
    this.#lineEnd();
  }

  #yamlTable(path: KeyPath, table: { readonly [key: string]: Tree }, column: number): void {
    for (const [index, [key, value]] of Object.entries(table).entries()) {
      if (index > 0) this.text += " ".repeat(column);
      if (index === 0) this.#mark(path);
      this.#key([...path, key], this.#spellKey(key));
      this.text += ":";
      this.#yamlValue([...path, key], value, column, false);
    }
  }

  /** A value behind a key or hyphen, with the end of its line. */
  #yamlValue(path: KeyPath, value: Tree, column: number, isItem: boolean): void {
    const random = this.#random;
    const isEmpty = typeof value === "object" && Object.keys(value).length === 0;
    const blank = random.pick([" ", "  "]);
    if (typeof value !== "object" || isEmpty || random.chance(0.3)) {
      this.text += blank;
      const ownLines = typeof value === "string" && random.chance(0.5) && this.#yamlLines(value);
      if (typeof ownLines === "object") {
        const indent = this.#newline + " ".repeat(column + random.int(1, 3));
        this.#mark(path);
        this.text += ownLines.join(indent) + this.#newline.repeat(random.int(1, 2));
        return;
      }
      this.text += random.chance(0.1) ? "&anchor " : "";
      this.#value(path, value);
      this.#lineEnd();
      return;
    }
    const isList = Array.isArray(value);
    const isHere = isItem && random.chance(0.6);
    const inner = isHere
      ? column + 1 + blank.length
      : column + (isList && !isItem ? random.int(0, 3) : random.int(1, 4));
    if (isHere) this.text += blank;
    else {
      this.#lineEnd();
      this.text += " ".repeat(inner);
    }
    if (!isList) this.#yamlTable(path, value as { readonly [key: string]: Tree }, inner);
    else {
      for (const [index, item] of (value as Tree[]).entries()) {
        if (index > 0) this.text += " ".repeat(inner);
        this.#key([...path, index], "-");
        this.#yamlValue([...path, index], item, inner, true);
      }
    }
  }

  /** A text without quotes, as lines, if it can be written so. */
  #yamlLines(text: string): string[] | undefined {
    const random = this.#random;
    if (/^\S/.test(text) && random.chance(0.3)) return ["|-", text];
    const isPlain = /^[xé][^:#]*(?<! )$/.test(text);
    if (!isPlain) return undefined;
    return random.chance(0.5) ? text.split(/(?<=\S) (?=[xé])/) : [text];
  }
}
