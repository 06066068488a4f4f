// A manifest: the files of instances and links that a user writes → one checked whole, or all faults.
//
// Reads nothing itself: files and the environment are handed in. What comes out has every name
// resolved and every default in its place; `manifest/plan.ts` compares it with what is there.

import { dirname, resolve } from "node:path";

import { assert, messageChain } from "./errors.ts";
import { MAX_MANIFEST_FILES, MAX_MANIFEST_LENGTH } from "./limits.ts";
import { readInstance, readLink, readRemote, nameTextFault } from "./manifest/entries.ts";
import { type Fault, quote } from "./manifest/fault.ts";
import {
  formatOf,
  NO_PLACES,
  type ParsedValue,
  parseText,
  type Places,
} from "./manifest/places.ts";
import { Declarations } from "./manifest/resolve.ts";
import { type Document, refuse, Section, type Sources } from "./manifest/section.ts";
import type { Manifest } from "./manifest/wanted.ts";
import { pathFault } from "./settings.ts";

export type Loaded =
  | { readonly kind: "valid"; readonly manifest: Manifest }
  /** In the order of the files and their lines. */
  | { readonly kind: "refused"; readonly faults: readonly Fault[] };

/** Loads the manifest that begins with the file at an absolute path: `.toml`, `.yaml` or `.json`. */
export function loadManifest(file: string, sources: Sources): Loaded {
  const loader = new Loader(file, sources);
  loader.readFile(file, (message) => {
    loader.faults.push({ file, place: undefined, path: [], message, hint: undefined });
  });
  return loader.finish();
}

/** Checks the value that a `.ts` manifest exports; what it includes is loaded as ever. */
export function checkManifest(file: string, value: unknown, sources: Sources): Loaded {
  const loader = new Loader(file, sources);
  loader.readValue(file, value, NO_PLACES);
  return loader.finish();
}

const ROOT_KEYS = ["name", "include", "instances", "links", "remotes"];

class Loader {
  readonly faults: Fault[] = [];
  readonly #root: string;
  readonly #sources: Sources;
  readonly #declared = new Declarations();
  /** The files that were begun, each with the one that includes it. */
  readonly #files = new Map<string, string | undefined>();
  #owner: string;

  constructor(root: string, sources: Sources) {
    assert(root === resolve("/", root), `the manifest's path ${quote(root)} is not absolute`);
    this.#root = root;
    this.#owner = root;
    this.#sources = sources;
    this.#files.set(root, undefined);
  }

  /** Reads a file with all that it includes; `report` takes what is wrong with it as a whole. */
  readFile(file: string, report: (message: string) => void): void {
    const parsed = this.#parseFile(file, report);
    if (parsed === undefined) {
      this.#declared.isComplete = false;
      return;
    }
    for (const { path, place } of parsed.twice) {
      this.faults.push({ file, place, path, message: "it is there twice", hint: undefined });
    }
    this.readValue(file, parsed.value, parsed.places);
  }

  #parseFile(file: string, report: (message: string) => void): ParsedValue | undefined {
    const format = formatOf(file);
    if (format === undefined) {
      report(`${quote(file)} is no .toml, .yaml, .yml or .json file`);
      return undefined;
    }
    let text: string;
    try {
      text = this.#sources.read(file);
    } catch (error) {
      report(`${quote(file)} cannot be read: ${messageChain(error).join(": ")}`);
      return undefined;
    }
    if (text.length > MAX_MANIFEST_LENGTH) {
      report(`${quote(file)} is longer than ${MAX_MANIFEST_LENGTH} characters`);
      return undefined;
    }
    if (text.trim() === "") {
      // What a failed "export > FILE" leaves would end everything that the file has made.
      const nothing = format === "json" ? "write {}" : "say so in a comment";
      report(`${quote(file)} is empty; if nothing is to be there, ${nothing}`);
      return undefined;
    }
    const parsed = parseText(text, format);
    if (parsed.kind === "value") return parsed;
    const { place, message } = parsed;
    this.faults.push({ file, place, path: [], message, hint: undefined });
    return undefined;
  }

  /** Reads the value of a file with all that it includes. */
  readValue(file: string, value: unknown, places: Places): void {
    const document: Document = { file, places, sources: this.#sources, faults: this.faults };
    const section = Section.of(document, [], value ?? {}); // an empty YAML file is null
    if (section === undefined) return;
    section.expectKeys(ROOT_KEYS, { services: "instances", processes: "instances" });
    this.#readName(section);
    for (const [name, inner] of section.sections("instances")) {
      const instance = inner && readInstance(inner, name);
      this.#declared.addInstance(name, { value: instance, document, path: ["instances", name] });
    }
    for (const [name, inner] of section.sections("remotes")) {
      const remote = inner && readRemote(inner);
      this.#declared.addRemote(name, { value: remote, document, path: ["remotes", name] });
    }
    for (const inner of section.list("links")) {
      this.#declared.addLink({ value: readLink(inner), document, path: inner.path });
    }
    this.#readIncludes(section);
  }

  #readName(section: Section): void {
    const name = section.text("name", nameTextFault);
    if (section.has("name") && section.document.file !== this.#root) {
      section.refuse("name", "only the first file of a manifest has a name");
    }
    this.#owner = name ?? this.#owner;
  }

  #readIncludes(section: Section): void {
    const from = section.document.file;
    for (const [index, path] of (section.texts("include", pathFault) ?? []).entries()) {
      if (path === "") {
        this.#declared.isComplete = false;
        continue;
      }
      const report = (message: string): void => {
        refuse(section.document, ["include", index], message);
      };
      const file = resolve(dirname(from), path);
      const fault = this.#includeFault(file, from);
      if (fault !== undefined) report(fault);
      else {
        this.#files.set(file, from);
        this.readFile(file, report);
      }
    }
  }

  /** Says why a file may not be included; the chain of its includers leads to the root. */
  #includeFault(file: string, from: string): string | undefined {
    const chain = [from];
    for (let at = this.#files.get(from); at !== undefined; at = this.#files.get(at)) {
      chain.unshift(at);
    }
    if (chain.includes(file)) {
      const circle = [...chain.slice(chain.indexOf(file)), file];
      return `files include each other in a circle: ${circle.join(" → ")}`;
    }
    if (this.#files.has(file)) {
      return `${quote(file)} is included already, by ${quote(this.#files.get(file) as string)}`;
    }
    return this.#files.size < MAX_MANIFEST_FILES
      ? undefined
      : `a manifest has at most ${MAX_MANIFEST_FILES} files`;
  }

  /** The manifest, if nothing was wrong. */
  finish(): Loaded {
    const instances = this.#declared.resolveInstances();
    const links = this.#sources.isForRemoval === true ? [] : this.#declared.resolveLinks();
    if (this.faults.length === 0) {
      return { kind: "valid", manifest: { owner: this.#owner, instances, links } };
    }
    const files = [...this.#files.keys()];
    const rank = ({ file, place }: Fault): number[] => {
      const known = files.indexOf(file);
      return [known < 0 ? files.length : known, place?.line ?? 0, place?.column ?? 0];
    };
    const ranked = this.faults.map((fault) => ({ fault, rank: rank(fault) }));
    ranked.sort((a, b) => {
      const difference = a.rank.map((part, index) => part - (b.rank[index] as number));
      return difference.find((part) => part !== 0) ?? 0;
    });
    return { kind: "refused", faults: ranked.map(({ fault }) => fault) };
  }
}
