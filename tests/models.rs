//! Any two models side by side: `diff` and `verify` over checkpoint, GGUF and Hugging Face's layout.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tritforge_gguf::Gguf;
use tritforge_ternary::Packing;

mod project;

use project::Project;

/// A run of a few steps, and its last checkpoint in every form, embeddings exact.
fn every_form() -> (Project, [&'static str; 5]) {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet", "--set", "train.steps=4"]);
    let forms = [("m.gguf", "tq2_0"), ("i2s.gguf", "i2_s"), ("packed", "hf-packed"), ("latent", "hf-f32")];
    for (out, format) in forms {
        project.ok(&["export", "runs/tiny", "-o", out, "--format", format, "--embeddings", "f32"]);
    }
    (project, ["runs/tiny", "m.gguf", "i2s.gguf", "packed", "latent"])
}

#[test]
fn every_form_of_a_model_is_the_same_model() {
    let (project, forms) = every_form();
    for (i, first) in forms.iter().enumerate() {
        for second in &forms[i + 1..] {
            let printed = project.ok(&["diff", first, second]);
            assert!(printed.contains("the models are identical"), "{first} {second}:\n{printed}");
        }
    }
    for [first, second] in [
        ["runs/tiny", "packed"],
        ["packed", "m.gguf"],
        ["i2s.gguf", "latent"],
        ["m.gguf", "i2s.gguf"],
        ["latent", "packed"],
    ] {
        let verify = ["verify", first, second, "--bound", "0", "--greedy-tokens", "8", "--text", "text.txt"];
        let printed = project.ok(&verify);
        assert!(printed.contains("int32 sums identical"), "{first} {second}:\n{printed}");
    }
}

#[test]
fn a_command_that_takes_another_form_tells_the_way_to_it() {
    let (project, _) = every_form();
    let base = ["train", "recipe.toml", "--quiet", "--set", "run.out=runs/other", "--set"];
    let on = |set| [&base[..], &[set]].concat();
    for (args, found, way) in [
        (
            &["generate", "runs/tiny", "--prompt", "a"][..],
            "runs/tiny: a checkpoint",
            "tritforge export runs/tiny -o model.gguf",
        ),
        (
            &["chat", "packed"],
            "packed: a model in the layout of Hugging Face",
            "tritforge import packed -o DIR",
        ),
        (&["bench", "runs/tiny/step-000004"], "a checkpoint", "tritforge export"),
        (&["export", "m.gguf", "-o", "x.gguf"], "m.gguf: a GGUF file", "tritforge import m.gguf -o DIR"),
        (&["eval", "text.txt", "--text", "text.txt"], "a file that begins with", "expected a checkpoint"),
        (
            &["eval", "runs", "--text", "text.txt"],
            "runs: no model itself",
            "runs/tiny is one: give that directory",
        ),
        (&["inspect", "nowhere"], "nowhere: no such file or directory", "expected a checkpoint"),
        (&on("model.base=\"nowhere\""), "nowhere: no such file or directory", "expected a checkpoint"),
    ] {
        let error = project.fails(args);
        assert!(error.contains(found) && error.contains(way), "{args:?}: {error}");
    }
}

/// A recipe that goes on from a model, whose shape and tokenizer it takes.
const BASED: &str = "[model]\nbase = \"latent\"\n[data]\ntrain = [\"text.txt\"]\nseq_len = 32\n[train]\nsteps = 2\n\
                     batch_size = 2\n[sample]\ntokens = 0\n";

#[test]
fn a_run_starts_from_a_model_of_any_form() {
    let (project, _) = every_form();
    fs::write(project.path("based.toml"), BASED).unwrap();
    let train = |base: &str, out: &str, set: &[&str]| {
        let names = [format!("model.base={base:?}"), format!("run.out={out}")];
        let set = names.iter().map(String::as_str).chain(set.iter().copied());
        let set = set.flat_map(|key| ["--set", key]).map(str::to_string);
        let args: Vec<String> = ["train", "based.toml", "--quiet", "--resume"]
            .map(str::to_string)
            .into_iter()
            .chain(set)
            .collect();
        project.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let trained = |base: &str, out: &str, set: &[&str], file: &str| {
        let output = train(base, out, set);
        assert!(output.status.success(), "{base}: {}", String::from_utf8_lossy(&output.stderr));
        fs::read(project.path(&format!("{out}/step-000002/{file}"))).unwrap()
    };
    trained("latent", "runs/all", &[], "model.safetensors");
    // Adapters on the same codes, wherever those are stored.
    let on = |base: &str, out: &str| trained(base, out, &["lora.rank=4"], "adapter_model.safetensors");
    let [packed, gguf] = [on("packed", "runs/packed"), on("m.gguf", "runs/gguf")];
    assert!(packed == gguf);
    for run in ["runs/packed", "runs/gguf"] {
        project.ok(&["eval", run, "--text", "text.txt"]);
    }
    // Codes alone cannot be trained, and an adapter does not go on with other ones.
    let refused = |set: &[&str]| {
        let output = train("m.gguf", "runs/gguf", set);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(&[]);
    assert!(message.contains("packed ternary weights cannot be trained directly"), "{message}");
    change_a_code(&project.path("m.gguf"));
    let message = refused(&["lora.rank=4", "train.steps=3"]);
    assert!(
        message.contains("model.base is not the checkpoint that the adapter was trained on"),
        "{message}"
    );
}

/// Changes a code of blk.1.ffn_down.weight, the last tensor but its scale: TQ2_0 data, then 4 bytes of scale padded
/// to 32.
fn change_a_code(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() - 32 - 66;
    bytes[at] = (bytes[at] & !3) | (((bytes[at] & 3) + 1) % 3);
    fs::write(file, &bytes).unwrap();
}

fn json(project: &Project, args: &[&str], code: i32) -> Value {
    let output = project.run(args);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn diff_finds_one_code_and_tells_where() {
    let (project, _) = every_form();
    fs::copy(project.path("m.gguf"), project.path("changed.gguf")).unwrap();
    change_a_code(&project.path("changed.gguf"));
    for other in ["m.gguf", "runs/tiny", "packed"] {
        let report = json(&project, &["diff", other, "changed.gguf", "--json"], 1);
        let tensors = report["tensors"].as_array().unwrap();
        let found: Vec<&Value> = tensors.iter().filter(|t| t["same"] == false).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["name"], "model.layers.1.mlp.down_proj.weight");
        assert_eq!(found[0]["flipped"], 1);
        assert_eq!(report["config"].as_array().unwrap().len(), 0);
    }
    let report = json(&project, &["verify", "packed", "changed.gguf", "--json"], 1);
    let first = &report["first_difference"];
    assert_eq!((&first["tensor"], &first["quantity"]), (&"blk.1.ffn_down.weight".into(), &"codes".into()));
    let changed = report["projections"].as_array().unwrap().iter().map(|p| p["codes_different"].as_u64());
    assert_eq!(changed.sum::<Option<u64>>(), Some(1));
}

#[test]
fn diff_tells_rounding_from_training_and_trouble_from_both() {
    let (project, _) = every_form();
    project.ok(&["export", "runs/tiny", "-o", "f16.gguf", "--embeddings", "f16"]);
    let report = json(&project, &["diff", "runs/tiny", "f16.gguf", "--json"], 1);
    let different = |report: &Value| {
        let tensors = report["tensors"].as_array().unwrap().iter().filter(|t| t["same"] == false);
        tensors.map(|t| t["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(different(&report), ["model.embed_tokens.weight"]);
    let relative = report["tensors"][0]["relative"].as_f64().unwrap();
    assert!(relative > 0.0 && relative < 2f64.powi(-11), "{relative}");
    project.ok(&["diff", "runs/tiny", "f16.gguf", "--tolerance", "5e-4"]);
    // Steps of training move latent weights whether or not codes flip.
    let report = json(&project, &["diff", "runs/tiny/step-000002", "runs/tiny/step-000004", "--json"], 1);
    let ternary: Vec<&Value> =
        report["tensors"].as_array().unwrap().iter().filter(|t| t["compared"] == "ternary").collect();
    assert_eq!(ternary.len(), 14);
    assert!(ternary.iter().all(|t| t["latent_max_difference"].as_f64() > Some(0.0)));
    assert!(project.fails(&["diff", "runs/tiny", "absent"]).contains("absent"));
    assert_eq!(project.run(&["diff", "runs/tiny", "absent"]).status.code(), Some(2));
}

#[test]
fn inspect_tells_the_same_of_every_form_and_who_loads_each() {
    let (project, forms) = every_form();
    let reports = forms.map(|form| json(&project, &["inspect", form, "--codes-digest", "--json"], 0));
    let codes = |report: &Value| {
        let tensors = report["tensors"].as_array().unwrap().iter();
        let mut codes: Vec<(String, String)> = tensors
            .filter(|t| t["codes_sha256"].is_string())
            .map(|t| (t["codes_sha256"].to_string(), t["scale"].to_string()))
            .collect();
        codes.sort();
        codes
    };
    for report in &reports {
        assert_eq!(report["parameters"], reports[0]["parameters"]);
        assert_eq!(report["tokenizer"], reports[0]["tokenizer"]);
        assert_eq!(report["ternary"]["weights"], reports[0]["ternary"]["weights"]);
        assert_eq!(codes(report), codes(&reports[0]));
    }
    assert_eq!(codes(&reports[0]).len(), 14);
    assert_eq!(reports[0]["tokenizer"]["pre"], "gpt-2");
    let loads = |i: usize| reports[i]["loads_in"].as_array().unwrap().iter().map(|r| r.as_str().unwrap());
    assert_eq!(loads(0).collect::<Vec<_>>(), ["tritforge"]);
    assert_eq!(loads(1).collect::<Vec<_>>(), ["tritforge", "llama.cpp", "bitnet.cpp"]);
    assert_eq!(loads(2).collect::<Vec<_>>(), ["tritforge", "bitnet.cpp"]);
    assert_eq!(loads(3).collect::<Vec<_>>(), ["tritforge", "transformers"]);
    // 66 bytes a block of 256 and 4 a tensor; 2 bits and 4 bytes a tensor; 4 bytes a weight.
    let bits = |i: usize| reports[i]["ternary"]["bits_per_weight"].as_f64().unwrap();
    let per_tensor = 14.0 * 32.0 / reports[0]["ternary"]["weights"].as_f64().unwrap();
    assert!((bits(1) - 2.0625 - per_tensor).abs() < 1e-9, "{}", bits(1));
    assert!((bits(3) - 2.0 - per_tensor).abs() < 1e-9, "{}", bits(3));
    assert_eq!(bits(4), 32.0);
    let printed = project.ok(&["inspect", "m.gguf", "--tensors", "--metadata"]);
    assert!(printed.contains("tokenizer.ggml.pre") && printed.contains("blk.1.ffn_down.scale"), "{printed}");
}

#[test]
fn inspect_says_of_a_file_what_eval_does_with_it() {
    let (project, _) = every_form();
    let ours = |file: &str| json(&project, &["inspect", file, "--json"], 0)["runtimes"][0].clone();
    assert_eq!(ours("m.gguf")["loads"], true);
    let bytes = fs::read(project.path("m.gguf")).unwrap();
    // The last block of blk.1.ffn_down.weight; 4 bytes of scale padded to 32 follow. Its own scale is f16
    // 1.0.
    let scale = bytes.len() - 32 - 2;
    assert_eq!(bytes[scale..scale + 2], [0, 0x3c]);
    // A block with another scale: one scale a row, which the engine multiplies.
    let mut rows = bytes.clone();
    rows[scale..scale + 2].copy_from_slice(&[0x00, 0x38]);
    fs::write(project.path("rows.gguf"), rows).unwrap();
    project.ok(&["eval", "rows.gguf", "--text", "text.txt", "--tokens", "100"]);
    assert_eq!(ours("rows.gguf")["loads"], true);
    for (fault, at, changed) in
        [("scale", scale, [0x00u8, 0x7e].as_slice()), ("scale", bytes.len() - 32, &f32::NAN.to_le_bytes())]
    {
        let mut bytes = bytes.clone();
        bytes[at..at + changed.len()].copy_from_slice(changed);
        fs::write(project.path("bad.gguf"), bytes).unwrap();
        let message = project.fails(&["eval", "bad.gguf", "--text", "text.txt", "--tokens", "100"]);
        let ours = ours("bad.gguf");
        assert_eq!((&ours["runtime"], &ours["loads"]), (&Value::from("tritforge"), &Value::from(false)));
        let note = ours["note"].as_str().unwrap();
        assert!(note.contains(fault) && note.contains("blk.1.ffn_down"), "{note}");
        assert!(message.contains(note), "{note}\n{message}");
    }
}

#[test]
fn a_ternary_model_is_exported_as_numbers_for_other_quantizers() {
    let (project, _) = every_form();
    for format in ["f32", "f16", "bf16"] {
        let out = format!("{format}.gguf");
        let export = ["export", "runs/tiny", "-o", &out, "--format", format, "--embeddings", "f32"];
        let printed = project.ok(&export);
        assert!(printed.contains("do not quantize the activations"), "{printed}");
        let report = json(&project, &["inspect", &out, "--json"], 0);
        assert!(report.get("ternary").is_none());
        let loads: Vec<&str> =
            report["loads_in"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        assert_eq!(loads, ["tritforge", "llama.cpp", "bitnet.cpp", "ik_llama.cpp"]);
        project.ok(&["eval", &out, "--text", "text.txt", "--tokens", "100"]);
    }
    // The numbers are code times scale.
    let [packed, numbers] = ["m.gguf", "f32.gguf"].map(|file| Gguf::open(project.path(file)).unwrap());
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let ternary = packed.tensors().iter().filter(|t| t.ty.name() == "TQ2_0").inspect(|tensor| {
        let scale = packed.tensor(&tensor.name.replace(".weight", ".scale")).unwrap();
        let scale = float(packed.data(scale));
        let [cols, rows] = [tensor.dims[0] as usize, tensor.dims[1] as usize];
        let codes = Packing::Tq2_0.unpack(packed.data(tensor), rows, cols).unwrap().codes;
        let values = numbers.data(numbers.tensor(&tensor.name).unwrap()).chunks_exact(4).map(float);
        assert!(values.eq(codes.iter().map(|code| f32::from(*code) * scale)), "{}", tensor.name);
    });
    assert_eq!(ternary.count(), 14);
    let message = project.fails(&["export", "runs/tiny", "-o", "q8.gguf", "--format", "q8_0"]);
    assert!(message.contains("f32, f16 or bf16"), "{message}");
}

#[test]
fn a_synthetic_checkpoint_has_the_weights_of_the_synthetic_file() {
    let project = Project::new();
    let shape = "vocab_size = 300\nhidden_size = 256\nintermediate_size = 512\nnum_hidden_layers = 2";
    fs::write(project.path("shape.toml"), shape).unwrap();
    project.ok(&["synth", "shape.toml", "-o", "s.gguf", "--format", "i2_s", "--embeddings", "f32"]);
    project.ok(&["synth", "shape.toml", "-o", "s", "--checkpoint"]);
    let report = json(&project, &["diff", "s", "s.gguf", "--json"], 1);
    let tensors = report["tensors"].as_array().unwrap().iter().filter(|t| t["same"] == false);
    let different: Vec<&str> = tensors.map(|t| t["name"].as_str().unwrap()).collect();
    // The checkpoint's is rounded to bf16.
    assert_eq!(different, ["model.embed_tokens.weight"]);
    project.ok(&["diff", "s", "s.gguf", "--tolerance", "0.004"]);
    // Through Hugging Face's layout and back, bf16 included, nothing changes.
    project.ok(&["export", "s", "-o", "hf", "--format", "hf-packed"]);
    project.ok(&["import", "hf", "-o", "back"]);
    project.ok(&["diff", "s", "back"]);
}

#[test]
fn tokenize_gives_the_ids_of_every_form() {
    let (project, forms) = every_form();
    let ids = |model: &str| json(&project, &["tokenize", model, "--text", "text.txt", "--json"], 0);
    let expected = ids("packed/tokenizer.json");
    assert!(expected.as_array().unwrap().len() > 1000);
    for form in forms {
        assert_eq!(ids(form), expected, "{form}");
    }
}
