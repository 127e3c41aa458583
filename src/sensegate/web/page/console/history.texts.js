// Texts of the last messages, of changes, and of the pack for makers.
import { addTexts } from "./lib.js";

addTexts({
  lastMessages: ["Last 20 messages, as received", "最近 20 条消息（原始内容）"], liveNow: ["Live: pause", "实时：点击暂停"], liveOff: ["Paused: go on", "已暂停：点击继续"],
  noMessages: ["No message of this device is on the log.", "日志中没有该设备的消息。"], bytesOf: ["{0} bytes", "{0} 字节"], everyStage: ["every stage", "逐级解析"],
  "state.decoded": ["decoded", "已解析"], "state.quarantined": ["in quarantine", "已隔离"],
  changesOf: ["Changes", "变更记录"], noChanges: ["Nobody has changed it.", "没有变更记录。"], fieldsChanged: ["{0} fields", "{0} 个字段"], changesSince: ["Changes before {0} were not searched; the audit page has them.", "{0} 之前的变更未检索，可在审计页查询。"],
  "action.device.add": ["registered", "登记"], "action.device.change": ["changed", "修改"], "action.device.rotate": ["password replaced", "更换口令"],
  "action.device.disable": ["disabled", "停用"], "action.device.enable": ["enabled", "启用"], "action.device.retire": ["retired", "注销"],
  "action.device.move.shut": ["move: shut out", "移交：停止接入"], "action.device.move.back": ["move: taken back", "移交：退回"], "action.device.move.out": ["moved away", "移出"], "action.device.move.in": ["moved here", "移入"],
  "action.profile.draft": ["drafted", "起草"], "action.profile.propose": ["proposed", "提交"], "action.profile.withdraw": ["withdrawn", "撤回"], "action.profile.return": ["returned", "退回"],
  "action.profile.release": ["released", "发布"], "action.profile.canary": ["canary begun", "开始灰度"], "action.profile.canary.end": ["canary ended", "结束灰度"], "action.profile.shadow": ["shadow begun", "开始对比"], "action.profile.shadow.end": ["shadow ended", "结束对比"],
  "action.profile.rollback": ["rolled back", "回滚"], "action.profile.redecode": ["decoding again ordered", "下达重新解析"], "action.profile.redecode.cancel": ["decoding again cancelled", "取消重新解析"], "action.profile.redecode.done": ["decoded again", "重新解析完成"], "action.profile.pack": ["pack for the maker downloaded", "下载厂家资料包"],
  readFrom: ["From {0} on: more is too much to read from the log in time and needs a history (history.enabled). Not read again by itself.", "数据始于 {0}：更早的日志量过大，无法及时读取，需启用历史库（history.enabled）。不再自动刷新。"],
  logBegins: ["The log begins at {0}; more needs a history (history.enabled).", "日志始于 {0}；更早的数据需启用历史库（history.enabled）。"],
  partOfIt: ["A part of it is enough, as the trail writes it", "输入其中一部分即可，按审计记录的原文"],
  makerPack: ["Pack for the maker", "厂家资料包"],
});
