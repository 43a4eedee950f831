//! The grammar of an answer that has to be a call.

use tritforge_infer::{Grammar, literal};
use tritforge_text::{Tokenizer, ToolFormat};

use crate::request::{NamedGrammar, ToolChoice, Tools};

/// Calls of one answer at most: a weak model might never stop calling.
const MOST_CALLS: usize = 16;

/// The grammar of calls of the functions that may be called. Arguments are valid by the schemas of their tools.
pub(crate) fn grammar(format: ToolFormat, tools: &Tools, tokenizer: &Tokenizer) -> NamedGrammar {
    let may = |name: &str| match &tools.choice {
        ToolChoice::Named(named) => named == name,
        ToolChoice::Auto | ToolChoice::Required => true,
    };
    let functions: Vec<_> = tools.functions.iter().filter(|function| may(&function.name)).collect();
    // A special token is not spelled by its name.
    let mark = |name: &str| match tokenizer.id(name).filter(|id| tokenizer.is_special(*id)) {
        Some(id) => format!("<[{id}]>"),
        None => literal(name),
    };
    let (start, arguments) = match (format, tools.parallel) {
        (ToolFormat::Hermes, false) => ("call".to_string(), "arguments"),
        (ToolFormat::Hermes, true) => {
            (format!("call ({} call){{0,{}}}", literal("\n"), MOST_CALLS - 1), "arguments")
        }
        // Those models write one call an answer.
        (ToolFormat::Llama3, _) => ("call".to_string(), "parameters"),
        (ToolFormat::Mistral, several) => {
            let more = if several {
                format!(" ({} call){{0,{}}}", literal(", "), MOST_CALLS - 1)
            } else {
                String::new()
            };
            (format!("{} {} call{more} {}", mark("[TOOL_CALLS]"), literal("["), literal("]")), "arguments")
        }
    };
    let mut text = format!("start: {start}\n");
    text += &match format {
        ToolFormat::Hermes => format!(
            "call: {} {} body {} {}\n",
            mark("<tool_call>"),
            literal("\n"),
            literal("\n"),
            mark("</tool_call>")
        ),
        ToolFormat::Llama3 | ToolFormat::Mistral => "call: body\n".to_string(),
    };
    let bodies: Vec<String> = (0..functions.len()).map(|i| format!("body{i}")).collect();
    text += &format!("body: {}\n", bodies.join(" | "));
    let mut schemas = Vec::with_capacity(functions.len());
    for (i, function) in functions.iter().enumerate() {
        let begin = format!("{{\"name\": \"{}\", \"{arguments}\": ", function.name);
        text += &format!("body{i}: {} @arguments{i} {}\n", literal(&begin), literal("}"));
        schemas.push((format!("arguments{i}"), function.parameters.clone()));
    }
    NamedGrammar { param: "tools".to_string(), grammar: Grammar::Lark { text, schemas } }
}
