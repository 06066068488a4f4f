// Declarations of all files of a manifest → instances and links that know each other.
//
// Checks what no single entry can know: names that are taken or unknown, circles, links twice.

import { MAX_INSTANCES, MAX_LINKS } from "../limits.ts";
import { nameFault } from "../settings.ts";
import { remoteOf, type WrittenLink } from "./entries.ts";
import { didYouMean, formatKeyPath, type KeyPath, quote } from "./fault.ts";
import { findCircles } from "./order.ts";
import { type Document, refuse, refuseKey } from "./section.ts";
import {
  formatLink,
  type LinkEnd,
  linkKey,
  type NamedLink,
  type Remote,
  type WantedInstance,
} from "./wanted.ts";

/** Something that a manifest declares, and where. */
interface Declared<T> {
  readonly value: T;
  readonly document: Document;
  readonly path: KeyPath;
}

/** What the files of a manifest declare, in their order. What is undefined is reported already. */
export class Declarations {
  readonly #instances = new Map<string, Declared<WantedInstance | undefined>>();
  readonly #remotes = new Map<string, Declared<Remote | undefined>>();
  readonly #links: Declared<WrittenLink>[] = [];
  readonly #hints = new Map<string, string | undefined>();
  /** Whether all files could be read; if not, a name that is missing may be in one of them. */
  isComplete = true;

  addInstance(name: string, instance: Declared<WantedInstance | undefined>): void {
    if (this.#isFree(name, instance)) this.#instances.set(name, instance);
  }

  addRemote(name: string, remote: Declared<Remote | undefined>): void {
    if (this.#isFree(name, remote)) this.#remotes.set(name, remote);
  }

  addLink(link: Declared<WrittenLink>): void {
    this.#links.push(link);
  }

  /** Instances and remotes share their names: a link leads to either. */
  #isFree(name: string, { document, path }: Declared<unknown>): boolean {
    const fault = nameFault(name);
    if (fault !== undefined) refuseKey(document, path, `it cannot be a name: ${fault}`);
    const other = this.#instances.get(name) ?? this.#remotes.get(name);
    if (other !== undefined) {
      refuseKey(document, path, `the name is taken, ${locate(other, document)}`);
    }
    return other === undefined;
  }

  /** The instances, after a fault for each that comes after what is not there, or after itself. */
  resolveInstances(): WantedInstance[] {
    const names = [...this.#instances.keys()];
    const instances = [...this.#instances.values()].flatMap(({ value }) => value ?? []);
    for (const { value, document, path } of this.#instances.values()) {
      for (const [index, name] of (value?.after ?? []).entries()) {
        if (name === "" || this.#instances.has(name) || !this.isComplete) continue;
        const isRemote = this.#remotes.has(name);
        refuse(
          document,
          [...path, "after", index],
          isRemote ? `${quote(name)} is a remote, and nothing is started there` : unknown(name),
          this.#hint(name, names),
        );
      }
    }
    const surplus = [...this.#instances.values()][MAX_INSTANCES];
    if (surplus === undefined) this.#refuseCircles(instances);
    else
      refuseKey(surplus.document, surplus.path, `there are more than ${MAX_INSTANCES} instances`);
    return instances;
  }

  #refuseCircles(instances: readonly WantedInstance[]): void {
    for (const circle of findCircles(instances)) {
      const [first] = circle as [string];
      const { document, path } = this.#instances.get(first) as Declared<WantedInstance | undefined>;
      const way = [...circle, first].join(" after ");
      refuse(document, [...path, "after"], `the order goes in a circle: ${way}`);
    }
  }

  /** The links, after a fault for each end that is not there, and for each link that is there twice. */
  resolveLinks(): NamedLink[] {
    const first = new Map<string, Declared<WrittenLink>>();
    const links: NamedLink[] = [];
    for (const declared of this.#links) {
      const link = this.#resolveLink(declared);
      if (link === undefined) continue;
      const key = linkKey(link);
      const other = first.get(key);
      if (other === undefined) {
        first.set(key, declared);
        links.push(link);
      } else {
        const { document, path } = declared;
        const where = locate(other, document);
        refuse(document, path, `the link ${formatLink(link)} is there already, ${where}`);
      }
    }
    const surplus = this.#links[MAX_LINKS];
    if (surplus !== undefined) {
      refuse(surplus.document, surplus.path, `there are more than ${MAX_LINKS} links`);
    }
    return links;
  }

  #resolveLink({ value, document, path }: Declared<WrittenLink>): NamedLink | undefined {
    const { from, typeName, to, settings } = value;
    const instances = [...this.#instances.keys()];
    if (from !== undefined && !this.#instances.has(from) && this.isComplete) {
      const message = this.#remotes.has(from)
        ? `${quote(from)} is a remote, and a link begins at an instance`
        : unknown(from);
      refuse(document, [...path, "from"], message, this.#hint(from, instances));
    }
    if (to === undefined) return undefined;
    const end = this.#resolveEnd(to);
    if (end === undefined && !this.#remotes.has(to) && this.isComplete) {
      const hint =
        this.#hint(to, [...instances, ...this.#remotes.keys()]) ??
        "another orchestrator is IP:PORT";
      refuse(document, [...path, "to"], `no instance or remote is called ${quote(to)}`, hint);
    }
    return end === undefined || typeName === undefined
      ? undefined
      : { from, typeName, to: end, settings };
  }

  /** One name that is wrong may stand in thousands of links. */
  #hint(name: string, known: readonly string[]): string | undefined {
    const key = `${known.length} ${name}`; // names, with those of remotes or without
    if (!this.#hints.has(key)) this.#hints.set(key, didYouMean(name, known));
    return this.#hints.get(key);
  }

  #resolveEnd(to: string): LinkEnd | undefined {
    if (this.#instances.has(to)) return { kind: "instance", name: to };
    return this.#remotes.get(to)?.value ?? remoteOf(to);
  }
}

function unknown(name: string): string {
  return `no instance is called ${quote(name)}`;
}

/** Where something else was declared, as seen from a file. */
function locate({ document, path }: Declared<unknown>, from: Document): string {
  const place = document.places.ofKey(path);
  const where = document.file === from.file ? "in this file" : `in ${document.file}`;
  return place === undefined
    ? `as ${formatKeyPath(path)} ${where}`
    : `in line ${place.line}${document === from ? "" : ` of ${document.file}`}`;
}
