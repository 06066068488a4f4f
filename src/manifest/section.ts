// One table of a manifest while it is checked: takes the value of each key, and reports what is wrong.
//
// Every reader returns undefined both for a key that is not there and for one that is wrong; the
// fault is kept, and the reading goes on, so that a user sees all faults at once.

import { messageChain } from "../errors.ts";
import { anyOf, didYouMean, type Fault, type KeyPath, meant, quote } from "./fault.ts";
import type { Places } from "./places.ts";
import { type Environment, expandVariables } from "./variables.ts";

/** Where a manifest comes from: it touches no system itself. */
export interface Sources {
  /** Reads the file at an absolute path as text, or throws what the system says. */
  readonly read: (path: string) => string;
  readonly environment: Environment;
  /**
   * For who only asks what is a manifest's own, and in which order: values that stand on variables that
   * nobody has set, and files of variables, count as left out; links are not looked at.
   */
  readonly isForRemoval?: boolean;
}

/** One file of a manifest while it is checked. */
export interface Document {
  /** Absolute. */
  readonly file: string;
  readonly places: Places;
  readonly sources: Sources;
  readonly faults: Fault[];
}

/** Says what is wrong with a text, in words that follow the text; undefined: nothing. */
export type TextFault = (text: string) => string | undefined;

export class Section {
  readonly document: Document;
  readonly path: KeyPath;
  readonly #fields: Readonly<Record<string, unknown>>;

  constructor(document: Document, path: KeyPath, fields: Readonly<Record<string, unknown>>) {
    this.document = document;
    this.path = path;
    this.#fields = fields;
  }

  /** The section that a value is, after a fault for anything but a table. */
  static of(document: Document, path: KeyPath, value: unknown): Section | undefined {
    if (isTable(value)) return new Section(document, path, value);
    refuse(document, path, `it is ${kindOf(value)}, and a table is needed`);
    return undefined;
  }

  /** Reports a fault of the section, or of the value of one of its keys. */
  refuse(key: string | undefined, message: string, hint?: string): void {
    refuse(this.document, key === undefined ? this.path : [...this.path, key], message, hint);
  }

  /** Reports a fault of a key itself. */
  refuseKey(key: string, message: string, hint?: string): void {
    refuseKey(this.document, [...this.path, key], message, hint);
  }

  /** The keys that are there. */
  keys(): string[] {
    return Object.keys(this.#fields).filter((key) => this.has(key));
  }

  /** Whether the key has a value. Null, which YAML makes of nothing, is none. */
  has(key: string): boolean {
    return Object.hasOwn(this.#fields, key) && (this.#fields[key] ?? undefined) !== undefined;
  }

  value(key: string): unknown {
    return this.has(key) ? this.#fields[key] : undefined;
  }

  /** Reports every key that is not known; `synonyms` are the words of other tools for ours. */
  expectKeys(known: readonly string[], synonyms: Readonly<Record<string, string>> = {}): void {
    for (const key of Object.keys(this.#fields)) {
      if (known.includes(key)) continue;
      const synonym = Object.hasOwn(synonyms, key.toLowerCase())
        ? meant([synonyms[key.toLowerCase()] as string])
        : undefined;
      const spelled = key.replaceAll(/[-\s]/g, "_").replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_");
      const hint = synonym ?? didYouMean(spelled.toLowerCase(), known);
      this.refuseKey(key, "there is no such key", hint ?? `known are ${known.join(", ")}`);
    }
  }

  /** Reports it if the key has no value. */
  require(key: string): void {
    if (!this.has(key)) this.refuse(undefined, `the key ${quote(key)} is missing`);
  }

  /** A text with its variables expanded. */
  text(key: string, fault: TextFault = () => undefined): string | undefined {
    return this.has(key) ? this.#readText([...this.path, key], this.value(key), fault) : undefined;
  }

  /** A list of texts; an empty one stands for each that is wrong. */
  texts(key: string, fault: TextFault = () => undefined): string[] | undefined {
    return this.#list(key)?.map((item, index) => {
      return this.#readText([...this.path, key, index], item, fault) ?? "";
    });
  }

  choice<T extends string>(key: string, allowed: readonly T[]): T | undefined {
    const text = this.text(key);
    const choice = allowed.find((candidate) => candidate === text);
    if (text !== undefined && choice === undefined) {
      this.refuse(
        key,
        `${quote(text)} is unknown: it is ${anyOf(allowed)}`,
        didYouMean(text, allowed),
      );
    }
    return choice;
  }

  /** True or false; as a text only where a variable made it. */
  flag(key: string): boolean | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === "boolean") return value;
    if (typeof value === "string" && value.includes("$")) {
      const text = this.text(key);
      if (text === "true" || text === "false") return text === "true";
      if (text === undefined) return undefined;
    }
    this.refuse(key, `it is ${kindOf(value)}, and true or false is needed`);
    return undefined;
  }

  /** A text, or a number in its shortest spelling. */
  textOrNumber(key: string, fault: TextFault): string | undefined {
    const value = this.value(key);
    if (typeof value !== "number") return this.text(key, fault);
    const reason = fault(String(value));
    if (reason === undefined) return String(value);
    this.refuse(key, `${value} ${reason}`);
    return undefined;
  }

  /** The text of another file, which the value of a key names. */
  fileText(key: string, path: string): string | undefined {
    try {
      return this.document.sources.read(path);
    } catch (error) {
      this.refuse(key, `${quote(path)} cannot be read: ${messageChain(error).join(": ")}`);
      return undefined;
    }
  }

  /** The section that the value of a key is. */
  inner(key: string): Section | undefined {
    if (!this.has(key)) return undefined;
    return Section.of(this.document, [...this.path, key], this.value(key));
  }

  /** The sections of a table of tables, by their keys; undefined for what is no table. */
  sections(key: string): [name: string, section: Section | undefined][] {
    const table = this.inner(key);
    return table?.keys().map((name) => [name, table.inner(name)]) ?? [];
  }

  /** The sections of a list of tables. */
  list(key: string): Section[] {
    const items = this.#list(key) ?? [];
    return items.flatMap(
      (item, index) => Section.of(this.document, [...this.path, key, index], item) ?? [],
    );
  }

  #list(key: string): readonly unknown[] | undefined {
    const value = this.value(key);
    if (value === undefined || Array.isArray(value)) return value;
    this.refuse(key, `it is ${kindOf(value)}, and a list is needed`);
    return undefined;
  }

  #readText(path: KeyPath, value: unknown, fault: TextFault): string | undefined {
    const { document } = this;
    if (typeof value !== "string") {
      const hint =
        typeof value === "number" || typeof value === "boolean"
          ? `write it in quotes: "${value}"`
          : undefined;
      refuse(document, path, `it is ${kindOf(value)}, and a text is needed`, hint);
      return undefined;
    }
    const { environment, isForRemoval = false } = document.sources;
    const { text, faults } = expandVariables(value, environment);
    for (const { message, hint, isUnset } of faults) {
      if (!isUnset || !isForRemoval || isName(path)) refuse(document, path, message, hint);
    }
    if (faults.length > 0) return undefined;
    const reason = fault(text);
    if (reason === undefined) return text;
    refuse(document, path, `${quote(text)} ${reason}`);
    return undefined;
  }
}

/** Whether a path leads to the name of a manifest, by which it is known what belongs to it. */
function isName(path: KeyPath): boolean {
  return path.length === 1 && path[0] === "name";
}

/** Reports what is wrong with the value at a path. */
export function refuse(document: Document, path: KeyPath, message: string, hint?: string): void {
  const { file, places, faults } = document;
  faults.push({ file, place: places.ofValue(path), path, message, hint });
}

/** Like `refuse`, where the key is wrong and not its value. */
export function refuseKey(document: Document, path: KeyPath, message: string, hint?: string): void {
  const { file, places, faults } = document;
  faults.push({ file, place: places.ofKey(path), path, message, hint });
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** What a value is, in words. */
function kindOf(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return "a text";
  if (typeof value === "number") return `the number ${value}`;
  if (typeof value === "boolean") return String(value);
  if (isTable(value)) return "a table";
  if (typeof value !== "object") return `a ${typeof value}`;
  const isTime = /^\[object (Date|Temporal\.\w+)\]$/.test(Object.prototype.toString.call(value));
  return isTime ? "a date or time" : "an object of a class";
}
