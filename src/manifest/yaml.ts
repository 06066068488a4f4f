// Where the keys and values of a YAML file stand, told by indentation.
//
// Knows blocks of tables and lists, texts of several lines, anchors and tags before a value, and
// everything in brackets. What is rare (`? key`, several documents, tabs) makes it lose its way.

import { MAX_JSON_DEPTH } from "../limits.ts";
import type { KeyPath } from "./fault.ts";
import type { Scanner } from "./scan.ts";

/** A table or list that is open, with the column at which its keys or hyphens stand. */
interface Block {
  readonly column: number;
  readonly path: KeyPath;
  /** Of the item that is being read; undefined: it is a table. */
  readonly index: number | undefined;
}

/** Scans the whole text; false: the way is lost, and the scanner stands where. */
export function scanYaml(scanner: Scanner): boolean {
  const reader = new BlockReader(scanner);
  while (!scanner.isAtEnd) if (!reader.readLine()) return false;
  return true;
}

class BlockReader {
  readonly #scanner: Scanner;
  #open: Block[] = [];
  /** Whose value comes next, if it is not there yet. */
  #pending: KeyPath = [];
  #lineStart = 0;

  constructor(scanner: Scanner) {
    this.#scanner = scanner;
  }

  /** Reads a line, and those below it that belong to the same value. */
  readLine(): boolean {
    const scanner = this.#scanner;
    this.#lineStart = scanner.at;
    while (scanner.current === " ") scanner.at++;
    if (scanner.isLineDone()) return this.#nextLine();
    scanner.survey.statements.push(this.#lineStart);
    if (scanner.at === this.#lineStart && /^(---|\.\.\.|%)/.test(this.#rest())) {
      return this.#readMarker();
    }
    while (/^-(\s|$)/.test(this.#rest())) {
      if (this.#open.length > MAX_JSON_DEPTH) return false;
      this.#openItem();
      if (scanner.isLineDone()) return this.#nextLine();
    }
    return this.#readContent();
  }

  /** `---` before everything else, or a directive. */
  #readMarker(): boolean {
    const isFirst = this.#open.length === 0 && this.#scanner.survey.values.size === 0;
    if (!isFirst || !/^(---\s*(#.*)?$|%)/.test(this.#rest())) return false;
    return this.#nextLine();
  }

  #openItem(): void {
    const scanner = this.#scanner;
    const column = scanner.at - this.#lineStart;
    this.#closeBeyond(column);
    const top = this.#open.at(-1);
    const isNext = top?.column === column && top.index !== undefined;
    const list = isNext ? top.path : this.#pending;
    const index = isNext ? (top.index as number) + 1 : 0;
    if (isNext) this.#open.pop();
    this.#open.push({ column, path: list, index });
    this.#pending = [...list, index];
    scanner.noteKey(this.#pending, scanner.at);
    scanner.take("-");
    scanner.skipBlanks();
  }

  /** A key with or without its value, or a value that belongs to what is pending. */
  #readContent(): boolean {
    const scanner = this.#scanner;
    const start = scanner.at;
    const key = this.#readKey();
    if (key === undefined) {
      scanner.at = start;
      return this.#readValue();
    }
    const column = start - this.#lineStart;
    this.#closeBeyond(column);
    if (this.#open.at(-1)?.column === column && this.#open.at(-1)?.index !== undefined) {
      this.#open.pop(); // a list may stand as far left as the key that it belongs to
    }
    const top = this.#open.at(-1);
    const isOpen = top?.column === column;
    const table = isOpen ? top.path : this.#pending;
    if (!isOpen) {
      this.#open.push({ column, path: table, index: undefined });
      scanner.noteValue(table, start);
    }
    this.#pending = [...table, key];
    scanner.noteKey(this.#pending, start);
    if (scanner.isLineDone()) return this.#nextLine();
    return this.#readValue();
  }

  /** The key that stands here, and skips its colon; undefined: what stands here is no key. */
  #readKey(): string | undefined {
    const scanner = this.#scanner;
    const rest = this.#rest();
    if (/^["']/.test(rest)) {
      const key = scanner.readKey();
      scanner.skipBlanks();
      return key !== undefined && /^:(\s|$)/.test(this.#rest()) && scanner.take(":")
        ? key
        : undefined;
    }
    const colon = rest.search(/:(?=\s|$)/);
    const key = rest.slice(0, Math.max(colon, 0)).trimEnd();
    if (key === "" || /^[#&*!|>%@`[\]{},?]|\s#/.test(key)) return undefined;
    scanner.at += colon + 1;
    return key;
  }

  #readValue(): boolean {
    const scanner = this.#scanner;
    if (/^\?(\s|$)/.test(this.#rest())) return false;
    // An anchor, a tag, or one of each.
    for (let count = 0; count < 2 && /^[&!]$/.test(scanner.current); count++) {
      while (!scanner.isAtEnd && !/\s/.test(scanner.current)) scanner.at++;
      if (scanner.isLineDone()) return this.#nextLine();
      const at = scanner.at;
      if (this.#readKey() !== undefined) return false; // it belongs to a key
      scanner.at = at;
    }
    scanner.noteValue(this.#pending, scanner.at);
    if (/^[[{"']/.test(this.#rest())) {
      if (!scanner.scanValue(this.#pending, 0) || !scanner.isLineDone()) return false;
      return this.#nextLine();
    }
    return this.#nextLine() && this.#skipDeeper();
  }

  /** Lines that go on with a text: they stand further right than the block that it is in. */
  #skipDeeper(): boolean {
    const scanner = this.#scanner;
    const column = this.#open.at(-1)?.column ?? -1;
    for (;;) {
      const start = scanner.at;
      while (scanner.current === " ") scanner.at++;
      const isDeeper = scanner.at - start > column;
      const isBlank = /^\s*$/.test(this.#rest());
      if (scanner.isAtEnd || (!isDeeper && !isBlank)) {
        scanner.at = start;
        return true;
      }
      if (!isBlank) scanner.survey.statements.push(start);
      scanner.skipLine();
    }
  }

  #closeBeyond(column: number): void {
    this.#open = this.#open.filter((block) => block.column <= column);
  }

  #nextLine(): boolean {
    this.#scanner.skipLine();
    return true;
  }

  /** What is left of the line. */
  #rest(): string {
    const { text, at } = this.#scanner;
    const end = text.indexOf("\n", at);
    return text.slice(at, end < 0 ? text.length : end);
  }
}
