// What is wrong with a manifest: where, what, and what was probably meant.

import { relative } from "node:path";

import { showJson } from "../json.ts";
import { shorten } from "../log.ts";
import { nearest } from "../nearest.ts";

/** What is shown of a text that is wrong. */
const SHOWN_CHARACTERS = 64;

/** The keys and places in lists that lead to a value: `["links", 0, "to"]`. */
export type KeyPath = readonly (string | number)[];

/** Both count from 1; columns count characters. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

export interface Fault {
  /** Absolute. */
  readonly file: string;
  /** undefined: it is not known. */
  readonly place: Place | undefined;
  /** Empty: the file as a whole. */
  readonly path: KeyPath;
  /** What is wrong, and what would be right. */
  readonly message: string;
  readonly hint: string | undefined;
}

/** A fault on one line: `orchestrator.toml:7:11: instances.ping.restart: …`, as seen from `folder`. */
export function formatFault(fault: Fault, folder: string): string {
  const { place, path, message, hint } = fault;
  const seen = relative(folder, fault.file);
  const file = seen.startsWith("..") ? fault.file : seen;
  const where = place === undefined ? file : `${file}:${place.line}:${place.column}`;
  const what = path.length === 0 ? message : `${formatKeyPath(path)}: ${message}`;
  return `${where}: ${hint === undefined ? what : `${what}; ${hint}`}`;
}

/** `instances.ping.args[0]`; a key that is not a plain word stands in quotes. */
export function formatKeyPath(path: KeyPath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += (text === "" ? "" : ".") + formatKey(part);
  }
  return text;
}

/** A key as TOML spells it. */
export function formatKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : showJson(key);
}

/** `did you mean "restart"?`, or undefined if nothing is near. */
export function didYouMean(word: string, candidates: readonly string[]): string | undefined {
  const near = nearest(word, candidates).slice(0, 3);
  return near.length === 0 ? undefined : meant(near);
}

export function meant(words: readonly string[]): string {
  return `did you mean ${words.map((word) => JSON.stringify(word)).join(" or ")}?`;
}

/** `a, b or c` */
export function anyOf(words: readonly string[]): string {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** What somebody wrote, short and on one line. */
export function quote(text: string): string {
  return JSON.stringify(shorten(text, SHOWN_CHARACTERS));
}
