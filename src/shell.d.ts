// Shell programs are imported as text: `import program from "./name.sh" with { type: "text" }`.

declare module "*.sh" {
  const program: string;
  export default program;
}
