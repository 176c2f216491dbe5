/* Runs the networks beside the page, which stays alive meanwhile. First message: runtime (address of ONNX Runtime Web),
   binary (its WebAssembly) and networks (ONNX files by name). Every other: network, feeds {name: {values, dims}}. */
const sessions = {};
let ort;

async function begin({ runtime, binary, networks }) {
  ort = await import(runtime);
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.numThreads = 1; // more need headers that a file and most servers do not send
  for (const [name, bytes] of Object.entries(networks)) {
    sessions[name] = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  }
}

async function run({ network, feeds }) {
  const inputs = Object.entries(feeds).map(([name, { values, dims }]) => [name, new ort.Tensor("float32", values, dims)]);
  const [output] = Object.values(await sessions[network].run(Object.fromEntries(inputs)));
  return output.data;
}

onmessage = async ({ data }) => {
  try {
    postMessage({ id: data.id, values: data.runtime ? await begin(data) : await run(data) });
  } catch (error) {
    postMessage({ id: data.id, error: error.message ?? String(error) });
  }
};
