//! Who says what: empty answers, answers that repeat the question, pairs of the same answer, roles out of order.

use super::{FindingKind, quoted};
use crate::examples::{ASSISTANT, Body, ChatTurn};

/// Roles that chat templates know.
const ROLES: [&str; 8] =
    ["system", "developer", "user", ASSISTANT, "tool", "function", "ipython", "environment"];

pub(super) fn check(body: &Body, find: &mut dyn FnMut(FindingKind, String)) {
    match body {
        Body::Text(text) if text.trim().is_empty() => {
            find(FindingKind::EmptyAnswer, "the text is empty".to_string());
        }
        Body::Text(_) => {}
        Body::Turns(turns) | Body::Labelled { turns, .. } => {
            answers(turns, 0, find);
            order(turns, find);
        }
        Body::Preference { prompt, chosen, rejected } => {
            for answer in [chosen, rejected] {
                let turns: Vec<ChatTurn> = prompt.iter().chain(answer).cloned().collect();
                answers(&turns, prompt.len(), find);
            }
            if said(chosen) == said(rejected) {
                let text = chosen.last().and_then(ChatTurn::content).unwrap_or_default();
                find(
                    FindingKind::SameAnswers,
                    format!("chosen and rejected are both {}", quoted(text, false)),
                );
            }
            let turns: Vec<ChatTurn> = prompt.iter().chain(chosen).cloned().collect();
            order(&turns, find);
        }
    }
}

/// Messages as they are compared: white space at the ends does not count.
fn said(turns: &[ChatTurn]) -> Vec<(&str, &str)> {
    turns.iter().map(|turn| (turn.role(), turn.content().unwrap_or_default().trim())).collect()
}

/// The answers from the message `start` on.
fn answers(turns: &[ChatTurn], start: usize, find: &mut dyn FnMut(FindingKind, String)) {
    let folded =
        |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<String>>().join(" ");
    for (index, turn) in turns.iter().enumerate().skip(start).filter(|(_, turn)| turn.learn) {
        if turn.is_empty() {
            find(FindingKind::EmptyAnswer, format!("message {} ({})", index + 1, turn.role()));
            continue;
        }
        let (true, Some(answer)) = (turn.answer, turn.content()) else { continue };
        let Some(question) = turns[..index].iter().rfind(|turn| turn.role() == "user") else { continue };
        // Alpaca's instruction also stands without its input.
        let instruction = question.message.get("instruction").and_then(|value| value.as_str());
        let questions = [question.content(), instruction];
        if questions.into_iter().flatten().any(|question| folded(question) == folded(answer)) {
            find(FindingKind::AnswerIsQuestion, format!("message {}: {}", index + 1, quoted(answer, false)));
        }
    }
}

/// One fault of the order of roles, the first; and whether a user speaks at all.
fn order(turns: &[ChatTurn], find: &mut dyn FnMut(FindingKind, String)) {
    let role = |index: usize| turns[index].role();
    let fault = (0..turns.len()).find_map(|index| {
        let at = format!("message {}", index + 1);
        let before = if index == 0 { None } else { Some(role(index - 1)) };
        match (role(index), before) {
            (role, _) if !ROLES.contains(&role) => {
                Some(format!("{at} has the role {role:?}: expected one of {}", ROLES.join(", ")))
            }
            ("system" | "developer", Some(before)) if !matches!(before, "system" | "developer") => {
                Some(format!("{at}: a {} message follows one of {before}", role(index)))
            }
            ("user", Some("user")) => Some(format!("{at}: two messages of user follow each other")),
            (ASSISTANT, Some(ASSISTANT)) => {
                Some(format!("{at}: two messages of {ASSISTANT} follow each other"))
            }
            ("tool" | "function" | "ipython" | "environment", before)
                if !matches!(before, Some(ASSISTANT | "tool" | "function" | "ipython" | "environment")) =>
            {
                Some(format!("{at}: a result of a tool that {ASSISTANT} did not call"))
            }
            _ => None,
        }
    });
    let users = turns.iter().filter(|turn| turn.role() == "user").count();
    let first = turns.iter().map(ChatTurn::role).find(|role| !matches!(*role, "system" | "developer"));
    let last = turns.last().map(ChatTurn::role);
    let fault = fault.or_else(|| match (first, last) {
        (Some(ASSISTANT), _) if users > 0 => {
            Some(format!("{ASSISTANT} speaks before the first user message"))
        }
        (_, Some("user")) => Some("the last message is the user's: nothing answers it".to_string()),
        _ => None,
    });
    if let Some(fault) = fault {
        find(FindingKind::RoleOrder, fault);
    }
    if users == 0 {
        find(FindingKind::NoUserTurn, "no message has the role user".to_string());
    }
}
