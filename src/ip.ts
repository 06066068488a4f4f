// What an IP address is. `node:net` knows as well, and takes 10 ms to load: half of what a command takes.

const OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`);

/** What may stand in an IPv6 address: nothing that ends the brackets of a URL. */
const IPV6_CHARACTERS = /^[0-9a-fA-F:.]+$/;
const ZONE = /%[0-9a-zA-Z.:-]+$/;

/** Whether a text is an IPv4 address, `127.0.0.1`, and nothing else. */
export function isIPv4(text: string): boolean {
  return IPV4.test(text);
}

/** Whether a text is an IPv6 address, `::1` or `fe80::1%eth0`, and nothing else. */
export function isIPv6(text: string): boolean {
  const address = text.replace(ZONE, "");
  if (!IPV6_CHARACTERS.test(address) || !URL.canParse(`http://[${address}]/`)) return false;
  // Bun's URL takes a colon too many, and IPv4 addresses at the end that are short or octal.
  if (/(^|[^:]):$/.test(address)) return false;
  const end = address.slice(address.lastIndexOf(":") + 1);
  return !end.includes(".") || isIPv4(end);
}

/** Whether a text is an IP address. */
export function isIP(text: string): boolean {
  return isIPv4(text) || isIPv6(text);
}
