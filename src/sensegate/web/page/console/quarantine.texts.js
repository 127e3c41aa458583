// Texts of the quarantine.
export const en = {
  inQuarantine: "{0} messages", inbox: "Inbox: by reason, profile and topic", noTopic: "no topic", noProfileYet: "no profile", inboxEmpty: "The inbox is empty: every message was decoded.", moreQuarantined: "There are more than could be counted at once: choose a shorter time.",
  redecodeGroup: "Decode again", redecodeGroupHelp: "The {0} messages of this group, and others of the same time in quarantine, are decoded by the version in force. What gives readings leaves the quarantine, exactly once.", groupDevices: "Devices: {0}", fixProfile: "Mend its profile", toDevice: "Device", sure: "sure", guessed: "guessed", openInEditor: "Open in the editor",
  recoveredMessages: "{0} recovered, {1} still refused", "state.unrecognised": "not recognised", "column.field": "field", "column.guess": "guess",
};
export const zh = {
  inQuarantine: "{0} 条消息", inbox: "待处理：按原因、物模型和主题分组", noTopic: "无主题", noProfileYet: "无物模型", inboxEmpty: "没有待处理消息：全部消息均已解析。", moreQuarantined: "消息过多，未能全部统计，请缩短时段。",
  redecodeGroup: "重新解析", redecodeGroupHelp: "本组 {0} 条消息及同一时段隔离区中的其他消息将按现行版本重新解析；得出数值的消息离开隔离区，且只入库一次。", groupDevices: "设备：{0}", fixProfile: "修改物模型", toDevice: "设备", sure: "确定", guessed: "推测", openInEditor: "在编辑器中打开",
  recoveredMessages: "恢复 {0} 条，仍被拒 {1} 条", "state.unrecognised": "未识别", "column.field": "字段", "column.guess": "判断",
};
